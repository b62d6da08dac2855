"""Tags of a run of several streams."""

from dataclasses import replace

from ingest_pipeline.orchestration import tags
from ingest_pipeline.settings import load_settings
from ingest_pipeline_tests.samples import READING

PRESSURE = replace(READING, name="pressure", topic="pressure", table="pressure", job="sites")
HUMIDITY = replace(READING, name="humidity", topic="humidity", table="humidity", job="sites")


def test_a_run_of_a_stream_with_its_own_job_bears_the_name_of_the_stream() -> None:
    run_tags = tags.drain_tags("reading", [READING])
    assert run_tags == {"ingest/stream": "reading"}
    assert tags.drained_job(run_tags) == "reading"


def test_a_run_of_any_other_job_bears_the_name_of_the_job() -> None:
    for streams in ([PRESSURE], [HUMIDITY, PRESSURE]):
        run_tags = tags.drain_tags("sites", streams)
        assert run_tags.pop(tags.DEFER_ASSET_EVENTS, "false") == ("true" if len(streams) > 1 else "false")
        assert run_tags == {"ingest/drains": "sites"}
        assert tags.drained_job(run_tags | {"ingest/stream": "pressure"}) == "sites"
    assert tags.drained_job({"ingest/job": "maintenance"}) is None


def test_only_the_failed_streams_of_a_run_have_its_outcome() -> None:
    run_tags = {tags.ENDED: "failed:DataLoss", tags.FAILED_STREAMS: "pressure,reading"}
    assert tags.failed_streams(run_tags) == ["pressure", "reading"]
    assert [tags.outcome_of(run_tags, stream) for stream in (PRESSURE, HUMIDITY)] == ["failed:DataLoss", ""]
    assert tags.outcome_of({tags.ENDED: "age"}, HUMIDITY) == "age"


def test_the_definition_of_a_job_changes_with_each_of_its_streams() -> None:
    settings = load_settings({"humidity": "sites", "pressure": "sites", "reading": "reading"}, {})
    assert tags.definition_of_job([READING], settings) == tags.definition_of(READING, settings)
    changed = replace(PRESSURE, table="other")
    jobs = ([PRESSURE], [HUMIDITY], [HUMIDITY, PRESSURE], [HUMIDITY, changed])
    assert len({tags.definition_of_job(streams, settings) for streams in jobs}) == len(jobs)


def test_workers_in_other_racks_have_the_same_definition() -> None:
    places = [{"KAFKA_CLIENT_RACK": rack} for rack in ("a", "b")] + [{}]
    definitions = [tags.definition_of(READING, load_settings(["reading"], place)) for place in places]
    assert len(set(definitions)) == 1
    other = load_settings(["reading"], {"KAFKA_ISOLATION_LEVEL": "read_uncommitted"})
    assert tags.definition_of(READING, other) not in definitions

"""The jobs of Dagster's UI: each only looks unless its config says otherwise, and then it acts."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from ingest_pipeline.core.roles import Role
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.jobs.operation import DRY_RUN
from ingest_pipeline.orchestration.jobs.operator_jobs import OPERATIONS
from ingest_pipeline_tests.orchestration.bench import Bench, failure
from ingest_pipeline_tests.orchestration.records import Record
from ingest_pipeline_tests.orchestration.test_data_loss import GAPS, delete_before, devices
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.postgres_roles import give_to_owner

pytestmark = [pytest.mark.kafka, pytest.mark.role(Role.OPERATOR)]
Make = Callable[..., Bench]
BROKEN = Record(b'{"broken', 0)
STATUSES = "select status from ingest.dead_letter order by id"
LEDGER = ("position", "past_position", "stream_state", "dead_letter", "settled_letters", "gap", "loss")


def drained(bench: Bench, *records: Record) -> Bench:
    bench.produce(records)
    bench.drain()
    return bench


def job(bench: Bench, name: str, **config: Any) -> dg.ExecuteInProcessResult:
    definition = bench.definitions.resolve_job_def(name)
    op = {"config": {"stream": "temperature", **config}}
    return definition.execute_in_process(
        run_config={"ops": {f"{name}_op": op}}, instance=bench.instance, raise_on_error=False
    )


def step_metadata(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (output,) = [e.step_output_data for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_OUTPUT]
    return {name: value.value for name, value in output.metadata.items()}


def everything(bench: Bench) -> dict[str, list[Any]]:
    """Every row of the ledger and of the table, as text."""
    tables = [*(f"ingest.{name}" for name in LEDGER), bench.stream.table]
    return {table: bench.query(f"select t::text from {table} t order by 1") for table in tables}


def looked(bench: Bench, name: str, **config: Any) -> tuple[str, dict[str, object]]:
    """The log and the metadata of a dry run, which has changed nothing and says how to act."""
    before = everything(bench)
    result = job(bench, name, **config)
    assert result.success, failure(result)
    assert everything(bench) == before
    metadata, log = step_metadata(result), bench.said(result.run_id)
    assert metadata.pop("dry_run") == DRY_RUN
    assert "launch the job again with dry_run: false" in log
    assert bench.run_tags(result.run_id)[tags.DRY_RUN] == "true"
    return log, metadata


def acted(bench: Bench, name: str, **config: Any) -> tuple[str, dict[str, object]]:
    """The log and the metadata of a run that acts."""
    result = job(bench, name, dry_run=False, **config)
    assert result.success, failure(result)
    log = bench.said(result.run_id)
    assert "dry run" not in log
    assert tags.DRY_RUN not in bench.run_tags(result.run_id)
    return log, step_metadata(result)


def test_pause_and_resume(make_bench: Make) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 1))
    log, _ = looked(bench, "pause_stream", reason="index build")
    assert "temperature is not paused" in log
    assert "the runs of temperature would stop within a batch. Reason: index build" in log
    acted(bench, "pause_stream", reason="index build")
    assert bench.context.ledger.state().reason == "index build"
    log, _ = looked(bench, "pause_stream")
    assert "temperature is paused already: index build" in log
    log, _ = looked(bench, "resume_stream")
    assert "temperature would go on. It is paused by run " in log
    acted(bench, "resume_stream")
    assert not bench.context.ledger.state().paused
    log, _ = looked(bench, "resume_stream")
    assert "temperature is not paused" in log


@pytest.mark.role(Role.OWNER)
def test_a_job_that_only_looks_makes_no_ledger(make_bench: Make) -> None:
    bench = make_bench(partitions=1)
    bench.query("drop schema ingest cascade")
    give_to_owner(bench.url, [])
    for name, config in (("pause_stream", {}), ("resume_stream", {}), ("allow_dead_letters", {"count": 1})):
        assert job(bench, name, **config).success
    assert bench.query("select to_regclass('ingest.position')") == [None]
    acted(bench, "allow_dead_letters", count=1)
    assert bench.context.ledger.state().letters_allowed == 1


def test_accept_loss(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 2))
    assert "nothing to accept" in looked(bench, "accept_loss")[0]
    bench.produce(devices(2, 6))
    delete_before(kafka_server, bench.stream.topic, 5)
    log, metadata = looked(bench, "accept_loss")
    assert "offsets 2 to 4 (3) are recorded as lost. Reading continues at 5" in log
    assert metadata == {"losses": 1}
    assert "6 (4) are recorded" not in looked(bench, "accept_loss", start="latest")[0]
    assert "nothing to accept" in looked(bench, "accept_loss", partition=1)[0]
    assert "'soon' is neither earliest" in failure(job(bench, "accept_loss", start="soon"))
    log, metadata = acted(bench, "accept_loss", start="6")
    assert "offsets 2 to 5 (4) are recorded as lost. Reading continues at 6" in log
    assert metadata == {"losses": 1}
    assert bench.query(GAPS) == [(0, 1, 2, 6, "retention")]
    (by,) = bench.query("select accepted_by from ingest.gap")
    assert by.startswith("run ")
    bench.drain()
    assert bench.positions() == {0: 8}


def test_a_mistaken_loss_is_dismissed(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 2))
    bench.produce(devices(2, 3))
    delete_before(kafka_server, bench.stream.topic, 4)
    assert not bench.by_sensor().success
    log, metadata = looked(bench, "accept_loss", dismiss=True)
    assert "would be forgotten: " in log
    assert metadata == {"losses": 1}
    acted(bench, "accept_loss", dismiss=True)
    assert bench.query("select count(*) from ingest.loss") == [0]


def test_allow_and_acknowledge(make_bench: Make) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 2), BROKEN)
    assert looked(bench, "allow_dead_letters", count=7)[1] == {"left": 0}
    acted(bench, "allow_dead_letters", count=7)
    assert bench.context.ledger.state().letters_allowed == 7
    assert looked(bench, "allow_dead_letters", count=0)[1] == {"left": 7}
    assert looked(bench, "acknowledge_dead_letters")[1] == {"open": 1}
    assert acted(bench, "acknowledge_dead_letters")[1] == {"open": 1}
    assert bench.context.ledger.state().acknowledged_at is not None
    with pytest.raises(dg.DagsterInvalidConfigError, match="count"):
        job(bench, "allow_dead_letters")


def test_discard(make_bench: Make) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 2), BROKEN, BROKEN, Record(b"{}", 0))
    log, metadata = looked(bench, "discard_dead_letters", reason="truncated")
    assert "2 open letters would be discarded, decode: Input data was truncated" in log
    assert metadata == {"letters": 2}
    assert "no open letter is selected" in looked(bench, "discard_dead_letters", sqlstate="23514")[0]
    assert acted(bench, "discard_dead_letters", reason="truncated")[1] == {"letters": 2}
    assert bench.query(STATUSES) == ["discarded", "discarded", "open"]


def test_redrive(make_bench: Make) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 2), BROKEN)
    mended = b'{"device_id": "mended", "temperature": 1, "timestamp": "2026-01-01T00:00:00Z"}'
    bench.query("update ingest.dead_letter set value = %s", mended)
    counts = {"stored": 1, "present": 0, "refused": 0, "truncated": 0, "superseded": 0}
    assert looked(bench, "redrive_dead_letters")[1] == counts
    with pytest.raises(dg.DagsterInvalidConfigError, match="not in enum type"):
        job(bench, "redrive_dead_letters", stage="decoded")
    for other in ("timestamp", "value"):
        assert acted(bench, "redrive_dead_letters", stage=other)[1] == {**counts, "stored": 0}
    log, metadata = acted(bench, "redrive_dead_letters", stage="decode")
    assert metadata == counts
    assert bench.query("select device_id from temperature where kafka_offset = 2") == ["mended"]
    assert "mended" not in log


def test_replay(make_bench: Make) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 5))
    bench.query("delete from temperature")
    log, metadata = looked(bench, "replay", partition=0, from_offset=1, to_offset=4)
    assert "partition 0: offsets 1 to 3" in log
    assert metadata == {"offsets": 3}
    log, metadata = acted(bench, "replay", partition=0, from_offset=1, to_offset=4)
    assert "partition 0: offsets 1 to 3" in log
    assert metadata["stored"] == 3
    assert bench.rows() == 3
    assert "not an ISO 8601 timestamp" in failure(job(bench, "replay", from_time="soon", to_time="later"))
    with pytest.raises(dg.DagsterInvalidConfigError, match="not in enum type"):
        job(bench, "replay", stream="x", from_time="2020-01-01")
    assert "a first and a last time" in failure(job(bench, "replay", from_time="2020-01-01"))


def test_the_ui_shows_what_each_job_does(make_bench: Make) -> None:
    bench = make_bench(partitions=0, KAFKA_BOOTSTRAP_SERVERS="localhost:1")
    for operation in OPERATIONS:
        description = bench.definitions.resolve_job_def(operation.__name__).description
        assert description is not None
        assert description.endswith(" A dry run, unless dry_run is false.")

"""Streams that name the same job."""

from datetime import datetime

import msgspec
import pytest

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.core.streams import Job, by_name, jobs_of
from ingest_pipeline.operations.names import job_name, sensor_name
from ingest_pipeline.streams import STREAMS

EVENT = msgspec.defstruct("Event", [("event_time", datetime)])


def stream(name: str, job: str = "") -> Stream:
    return Stream(name, EVENT, job=job)


def test_a_stream_without_a_job_has_a_job_of_its_own_name() -> None:
    price = stream("price")
    assert price.job == "price"
    assert price == stream("price", job="price")
    assert price != stream("price", job="prices")


def test_jobs_and_their_streams_are_ordered_by_name() -> None:
    price, pressure, humidity = stream("price"), stream("pressure", "sites"), stream("humidity", "sites")
    assert jobs_of([pressure, price, humidity]) == [Job("price", (price,)), Job("sites", (humidity, pressure))]
    assert jobs_of([]) == []


def test_the_shipped_streams_keep_their_names_in_dagster() -> None:
    assert [(job.name, job_name(job.name), sensor_name(job.name)) for job in jobs_of(STREAMS)] == [
        ("price", "drain_price", "price_sensor"),
        ("temperature", "drain_temperature", "temperature_sensor"),
    ]


@pytest.mark.parametrize("job", ["Sites", "1_site", "_sites", "a-b", "a b", "s" * 41, "é"])
def test_a_job_has_the_form_of_a_streams_name(job: str) -> None:
    with pytest.raises(SettingsError) as caught:
        stream("humidity", job)
    assert caught.value.message == (
        f"stream humidity: job {job!r} is not a lower-case letter, then up to 39 of a-z, 0-9 and _"
    )
    assert stream("humidity", "s" * 40).job == "s" * 40


@pytest.mark.parametrize(
    "sites", [stream("sites"), stream("sites", "sites"), stream("sites", "other")], ids=["default", "own", "other"]
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_job_with_the_name_of_a_stream_is_refused(sites: Stream, turned: bool) -> None:
    """SITES_BATCH_SIZE would be the stream's and SITES_PARALLELISM the job's."""
    streams = [sites, stream("humidity", "sites")]
    with pytest.raises(SettingsError) as caught:
        by_name(reversed(streams) if turned else streams)
    assert caught.value.message == (
        "stream humidity: its job has the name of stream sites: give the job a name that no stream has, such as"
        ' job="sites_job"'
    )


def test_two_streams_that_exchange_their_names_as_jobs_are_refused() -> None:
    with pytest.raises(SettingsError, match="stream b: its job has the name of stream a"):
        by_name([stream("a", "b"), stream("b", "a")])


def test_a_topic_is_read_once_whatever_the_jobs() -> None:
    for jobs in (("sites", "sites"), ("sites", "others"), ("", "")):
        streams = [Stream(name, EVENT, topic="both", job=job) for name, job in zip("ab", jobs, strict=True)]
        with pytest.raises(SettingsError, match="streams a and b share the topic 'both'"):
            by_name(streams)


def test_the_definition_changes_with_the_job_alone() -> None:
    """A run that drains other streams needs a successor. The job of the stream's own name changes nothing."""
    price = stream("price")
    assert price.definition() == stream("price", "price").definition() == "04b295b37383", "as before there were jobs"
    assert len({price.definition(), stream("price", "one").definition(), stream("price", "two").definition()}) == 3

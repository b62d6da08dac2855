"""One sensor for several streams, against real Kafka and PostgreSQL."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace

import dagster as dg
import pytest
from confluent_kafka.admin import AdminClient
from dagster._core.test_utils import create_run_for_test

from ingest_pipeline.core.errors import KafkaUnavailable
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.asset_keys import topic_key
from ingest_pipeline.orchestration.checks import NO_LOSS, newest_evaluation
from ingest_pipeline.orchestration.sensor import sensor
from ingest_pipeline.orchestration.sensor.memory import SensorMemory, new_memory
from ingest_pipeline.orchestration.sensor.start_queue import StartQueue
from ingest_pipeline.settings import load_settings
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.records import prices, temperatures

pytestmark = pytest.mark.kafka
JOB = "sites"
PRICE, TEMPERATURE = sorted(STREAMS, key=lambda stream: stream.name)
Make = Callable[..., Bench]


@dataclass
class SharedJob:
    """The streams of a bench as members of one job, both drained to their ends."""

    bench: Bench
    contexts: list[StreamContext]
    memory: SensorMemory
    cursor: str | None = None
    observed: list[str] = field(default_factory=list)

    def tick(self) -> dg.SensorResult:
        context = dg.build_sensor_context(instance=self.bench.instance, cursor=self.cursor)
        result = sensor.tick(context, self.contexts, self.memory)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        self.observed += [event.asset_key.to_user_string() for event in result.asset_events]
        return result

    def reason(self) -> str:
        result = self.tick()
        assert result.run_requests == []
        assert isinstance(result.skip_reason, dg.SkipReason)
        return result.skip_reason.skip_message or ""

    def launched(self) -> Mapping[str, str]:
        (request,) = self.tick().run_requests or []
        return request.tags

    def produce(self, stream: Stream, count: int) -> None:
        make = prices if stream.name == PRICE.name else temperatures
        self.bench.produce(make(count), next(own for own in self.bench.streams if own.name == stream.name))


@pytest.fixture
def job(make_bench: Make) -> Iterator[SharedJob]:
    bench = make_bench([PRICE, TEMPERATURE])
    bench.produce(prices(4))
    bench.produce(temperatures(4), bench.streams[1])
    assert bench.by_hand().success
    settings = load_settings({stream.name: JOB for stream in bench.streams}, bench.environ)
    with closing(Clients(settings, bench.clock)) as clients:
        contexts = [StreamContext(replace(stream, job=JOB), clients) for stream in bench.streams]
        yield SharedJob(bench, contexts, new_memory(contexts))


def test_one_run_is_launched_for_all_streams(job: SharedJob) -> None:
    assert job.reason() == "2 caught up"
    job.produce(PRICE, 3)
    run_tags = job.launched()
    assert {name: run_tags.get(name) for name in (tags.DRAINS, tags.STREAM, tags.SHARD)} == {
        tags.DRAINS: JOB,
        tags.STREAM: None,
        tags.SHARD: "0/1",
    }
    create_run_for_test(job.bench.instance, tags.job_name(JOB), status=dg.DagsterRunStatus.STARTED, tags=dict(run_tags))
    job.produce(TEMPERATURE, 2)
    assert job.reason().startswith("2 waiting, lag 5; run ")


def test_a_paused_stream_leaves_the_other_alone(job: SharedJob) -> None:
    job.contexts[0].ledger.pause("rebuild", "ann")
    job.produce(PRICE, 3)
    assert job.reason().startswith("1 caught up; price paused: rebuild (ann)")
    job.produce(TEMPERATURE, 2)
    assert job.launched()[tags.DRAINS] == JOB


def test_a_deleted_topic_leaves_the_other_alone_and_is_red(job: SharedJob) -> None:
    topic = job.contexts[0].stream.topic
    admin = AdminClient({"bootstrap.servers": job.bench.bootstrap_servers})
    admin.delete_topics([topic])[topic].result(30)
    wait_for("the deletion to be known", lambda: "the topic of its 2 positions is gone" in job.reason())
    check = newest_evaluation(job.bench.instance, dg.AssetKey(PRICE.name), NO_LOSS)
    assert check is not None
    assert not check.passed
    job.produce(TEMPERATURE, 2)
    assert job.launched()[tags.DRAINS] == JOB


def test_a_failed_stream_leaves_the_other_alone(job: SharedJob) -> None:
    job.produce(PRICE, 3)
    failed_tags = {**job.launched(), tags.ENDED: "failed:TooManyDeadLetters", tags.FAILED_STREAMS: PRICE.name}
    job.contexts[0].ledger.note_failure("too many dead letters", stops=True)
    failed = dg.DagsterRunStatus.FAILURE
    create_run_for_test(job.bench.instance, tags.job_name(JOB), status=failed, tags=failed_tags)
    reason = job.reason()
    assert reason.startswith("1 caught up; price stopped: too many dead letters; backing off: the last 1 run failed")
    job.produce(TEMPERATURE, 2)
    assert job.launched()[tags.DRAINS] == JOB


def test_an_unknown_topic_leaves_the_other_alone(job: SharedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    topics, topic = job.contexts[0].clients.topics(), job.contexts[0].stream.topic
    identities = topics.identities
    silence = KafkaUnavailable(f"topic {topic}: no leader answers")
    monkeypatch.setattr(topics, "identities", lambda names: {**identities(names), topic: silence})
    monkeypatch.setattr(job.contexts[0].clients, "topics", lambda: topics)
    assert job.reason() == f"1 caught up; price {silence.message}"
    job.produce(TEMPERATURE, 2)
    assert job.launched()[tags.DRAINS] == JOB


def test_the_checks_of_a_stream_without_a_run_are_reported_beside_a_run_of_the_job(
    job: SharedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_runs: dict[str, bool] = {}
    for name, checks in job.memory.checks.items():
        monkeypatch.setattr(
            checks, "after_tick", lambda instance, name=name, **facts: has_runs.update({name: facts["has_runs"]})
        )
    job.produce(PRICE, 3)
    run_tags = dict(job.launched())
    assert has_runs == {"price": True, "temperature": True}, "the new run will evaluate them"
    started = dg.DagsterRunStatus.STARTED
    run = create_run_for_test(job.bench.instance, tags.job_name(JOB), status=started, tags=run_tags)
    connection = job.contexts[0].clients.writing_connection(run.run_id)
    try:
        session = job.contexts[0].clients.ledger_session(connection, job.contexts[0].stream)
        assert session.own([0, 1], exact=True) == {}
        job.tick()
    finally:
        connection.close()
    assert has_runs == {"price": True, "temperature": False}


def test_only_topics_with_changed_offsets_are_observed(job: SharedJob) -> None:
    job.tick()
    assert sorted(job.observed) == sorted(topic_key(context).to_user_string() for context in job.contexts)
    job.observed.clear()
    job.bench.clock.seconds += 400
    job.produce(PRICE, 3)
    job.tick()
    assert job.observed == [topic_key(job.contexts[0]).to_user_string()]


def test_the_sensor_has_the_name_of_its_job(job: SharedJob) -> None:
    definition = sensor.job_sensor(job.contexts, StartQueue(job.bench.clock))
    assert (definition.name, definition.job_name) == ("sites_sensor", "drain_sites")
    context = dg.build_sensor_context(instance=job.bench.instance)
    assert definition.evaluate_tick(context).skip_message == "2 caught up"

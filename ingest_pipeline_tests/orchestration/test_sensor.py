"""Ticks of a real sensor against real Kafka and PostgreSQL."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, NoReturn

import dagster as dg
import psycopg
import pytest
from dagster._core.test_utils import create_run_for_test

from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.sensor import sensor
from ingest_pipeline.orchestration.sensor.idle_poll import IdlePoll
from ingest_pipeline.orchestration.sensor.memory import SensorMemory
from ingest_pipeline.orchestration.sensor.reading import read
from ingest_pipeline.postgres import locks
from ingest_pipeline.testing import SettableClock
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.conftest import TEMPERATURE
from ingest_pipeline_tests.orchestration.records import temperatures
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.empty_database]
RUN = "1a2b3c4d-1111-4222-8333-444455556666"
Make = Callable[..., Bench]


def drained(bench: Bench, count: int) -> None:
    """Drains the stream to its end."""
    bench.produce(temperatures(count))
    bench.drain()


@contextmanager
def owned_by(bench: Bench, run_id: str) -> Iterator[None]:
    """Inside the block the run owns every partition."""
    with closing(bench.clients.writing_connection(run_id)) as connection:
        session = bench.clients.ledger_session(connection, bench.stream)
        assert session.own(list(bench.positions()), exact=True) == {}
        yield


def test_the_log_has_the_reason_once_while_records_wait(bench: Make, capfd: pytest.CaptureFixture[str]) -> None:
    here = bench()
    drained(here, 3)
    assert here.tick().skip_message == "caught up: lag 0"
    here.context.ledger.pause("index build", "ann")
    here.produce(temperatures(2))
    reasons = [here.tick().skip_message for _ in range(2)]
    assert all("index build (ann)" in str(reason) for reason in reasons)
    here.produce(temperatures(1))
    here.tick()
    log = capfd.readouterr().err
    assert log.count("index build") == 1
    assert "caught up" not in log


class TestLag:
    def test_a_run_is_requested_for_a_shard_with_lag(self, bench: Make) -> None:
        here = bench()
        here.produce(temperatures(3))
        (request,) = here.tick().run_requests
        assert request.run_config == {}
        assert request.tags[tags.STREAM] == "temperature"
        assert request.tags[tags.SHARD] == "0/1"
        assert request.tags["dagster/max_runtime"] == "1260"
        assert len(request.tags[tags.DEFINITION]) == 12
        assert tags.SUCCESSOR not in request.tags

    def test_every_shard_has_its_own_lag(self, bench: Make) -> None:
        here = bench(partitions=3, PARALLELISM="2")
        here.produce(temperatures(6, partitions=3))
        here.drain("0/2")
        (request,) = here.tick().run_requests
        assert request.tags[tags.SHARD] == "1/2"

    def test_without_lag_the_tick_is_skipped(self, bench: Make) -> None:
        here = bench()
        drained(here, 3)
        assert here.tick().run_requests == []
        assert here.tick().skip_message == "caught up: lag 0"

    def test_dagster_is_asked_once_while_the_stream_is_idle(self, bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        here, questions = bench(), []
        drained(here, 3)
        records = here.instance.get_run_records

        def counted(runs: dg.RunsFilter, limit: int | None = None) -> Any:
            if runs.job_name is not None:  # the other question is about active runs
                questions.append(runs)
            return records(runs, limit=limit)

        monkeypatch.setattr(here.instance, "get_run_records", counted)
        for _ in range(3):
            assert here.tick().skip_message == "caught up: lag 0"
        assert len(questions) == 1
        here.produce(temperatures(1, first=3))
        assert len(here.tick().run_requests) == 1
        here.drain()
        here.tick()
        assert len(questions) == 3, "after a run Dagster is asked again"

    def test_the_skip_message_names_the_owner_and_the_lag(self, bench: Make) -> None:
        here = bench()
        drained(here, 2)
        here.produce(temperatures(1234))
        with owned_by(here, RUN):
            outcome = here.tick()
        assert outcome.run_requests == []
        assert outcome.skip_message == "run 1a2b3c4d is draining; lag 1,234"
        (_,) = wait_for("its session's end", lambda: here.tick().run_requests)

    def test_the_skip_message_names_who_paused_and_why(self, bench: Make) -> None:
        here = bench()
        drained(here, 2)
        here.produce(temperatures(7))
        ledger = here.clients.ledger(here.stream)
        ledger.pause("table is being rebuilt", "ann")
        said = here.tick().skip_message or ""
        assert re.fullmatch(r"paused: table is being rebuilt \(ann\), since 20[-\d]+ [\d:]+ UTC; lag 7", said)
        ledger.resume()
        assert len(here.tick().run_requests) == 1

    def test_a_tick_reads_no_record_and_makes_no_consumer(self, bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> NoReturn:
            pytest.fail("a tick made a consumer")

        here = bench()
        here.produce(temperatures(3))
        monkeypatch.setattr(here.clients, "source", refuse)
        assert len(here.tick().run_requests) == 1
        assert here.query("select to_regclass('ingest.position')") == [None]


class CountedPoll(IdlePoll):
    """Counts the polls. A poll calls `meanwhile` and compares the ends once."""

    def __init__(self, meanwhile: Callable[[], None] | None = None) -> None:
        super().__init__(None, 1, SettableClock())
        self.count = 0
        self._meanwhile = meanwhile

    def ends_changed(self, end_offsets: Callable[[], Mapping[Any, NextOffset]], ends: Mapping[Any, NextOffset]) -> bool:
        self.count += 1
        if self._meanwhile is not None:
            self._meanwhile()
        return end_offsets() != ends


class TestIdlePoll:
    """Polls between two ticks. test_idle_poll.py tests their number."""

    def tick(self, here: Bench, idle_poll: IdlePoll) -> dg.SensorResult:
        outcome = sensor.tick(dg.build_sensor_context(instance=here.instance), [here.context], idle_poll=idle_poll)
        assert isinstance(outcome, dg.SensorResult)
        return outcome

    def test_a_record_between_two_ticks_is_launched_for_at_once(self, bench: Make) -> None:
        here = bench()
        drained(here, 3)
        idle_poll = CountedPoll(lambda: here.produce(temperatures(1, first=3)))
        (request,) = self.tick(here, idle_poll).run_requests or []
        assert (request.tags[tags.SHARD], idle_poll.count) == ("0/1", 1)

    def test_a_pause_between_two_ticks_prevents_the_launch(self, bench: Make) -> None:
        def pause_and_produce() -> None:
            here.clients.ledger(here.stream).pause("a test", "ann")
            here.produce(temperatures(1, first=3))

        here = bench()
        drained(here, 3)
        outcome = self.tick(here, CountedPoll(pause_and_produce))
        assert outcome.run_requests == []
        assert str(outcome.skip_reason).startswith("SkipReason(skip_message='paused: a test (ann)")

    def test_the_view_is_dated_before_the_poll(self, bench: Make) -> None:
        here, meanwhile = bench(), []
        drained(here, 3)
        context = dg.build_sensor_context(instance=here.instance)
        idle_poll = CountedPoll(lambda: meanwhile.append(time.time()))
        view = read(context, [here.context], SensorMemory(), idle_poll=idle_poll).view
        assert [view.now <= moment for moment in meanwhile] == [True]

    def test_no_poll_with_lag_an_owner_or_a_pause(self, bench: Make) -> None:
        here, idle_poll = bench(), CountedPoll()
        here.produce(temperatures(3))
        self.tick(here, idle_poll)
        here.drain()
        with owned_by(here, RUN):
            self.tick(here, idle_poll)
        here.clients.ledger(here.stream).pause("a test", "ann")
        self.tick(here, idle_poll)
        assert idle_poll.count == 0
        here.clients.ledger(here.stream).resume()
        self.tick(here, idle_poll)
        assert idle_poll.count == 1


class TestSuccessors:
    """After a change a successor of the draining run is launched at once."""

    def request(self, here: Bench, **drainer: str) -> Mapping[str, str]:
        run_tags = {tags.STREAM: "temperature", tags.SHARD: "0/1", **drainer}
        create_run_for_test(here.instance, "drain_temperature", RUN, status=dg.DagsterRunStatus.STARTED, tags=run_tags)
        with owned_by(here, RUN):
            (request,) = here.tick().run_requests
        return request.tags

    def test_another_definition(self, bench: Make) -> None:
        here = bench()
        drained(here, 2)
        assert self.request(here, **{tags.DEFINITION: "0123456789ab"})[tags.SUCCESSOR] == "definition"

    def test_another_number_of_shards(self, bench: Make) -> None:
        here = bench(partitions=1, PARALLELISM="2")
        here.produce(temperatures(1, partitions=1))
        here.drain("0/2")
        request = self.request(here)
        assert (request[tags.SHARD], request[tags.SUCCESSOR]) == ("0/2", "reshard")


class TestSupersededStarts:
    def test_a_run_before_its_start_is_canceled_and_replaced(self, bench: Make) -> None:
        here = bench()
        here.produce(temperatures(3))
        run_tags = {tags.STREAM: "temperature", tags.SHARD: "0/1", tags.DEFINITION: "0123456789ab"}
        create_run_for_test(here.instance, "drain_temperature", RUN, status=dg.DagsterRunStatus.STARTING, tags=run_tags)
        assert len(here.tick().run_requests) == 1
        run = here.instance.get_run_by_id(RUN)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.CANCELED
        assert "this run has not started" in here.said(RUN)


class TestATopicThatAppears:
    def test_a_new_topic_is_read_from_its_beginning(self, bench: Make, kafka_server: RealKafka) -> None:
        here = bench(partitions=0, START_FROM="latest")
        outcome = here.tick()
        assert outcome.run_requests == []
        assert here.stream.topic in outcome.skip_message
        assert outcome.skip_message.endswith("The sensor waits for the topic")
        kafka_server.create_topic(here.stream.topic, 2)
        try:
            here.produce(temperatures(5))
            assert len(here.tick().run_requests) == 1
            here.drain()
            assert here.rows() == 5
        finally:
            kafka_server.delete_topic(here.stream.topic)

    def test_an_old_topic_is_read_from_start_from(self, bench: Make) -> None:
        here = bench(START_FROM="latest")
        here.produce(temperatures(5))
        assert len(here.tick().run_requests) == 1
        here.drain()
        here.produce(temperatures(2))
        here.drain()
        assert here.rows() == 2


class TestGhosts:
    def started(self, here: Bench, **more: str) -> dg.DagsterRun:
        """A run that is STARTED in Dagster and has no process."""
        definition = tags.definition_of(here.stream, here.settings)
        run_tags = {tags.STREAM: "temperature", tags.SHARD: "0/1", tags.DEFINITION: definition, **more}
        return create_run_for_test(
            here.instance,
            job_name="drain_temperature",
            run_id=RUN,
            status=dg.DagsterRunStatus.STARTED,
            tags={name: value for name, value in run_tags.items() if value},
        )

    def status(self, here: Bench) -> dg.DagsterRunStatus:
        run = here.instance.get_run_by_id(RUN)
        assert run is not None
        return run.status

    def test_a_ghost_is_reported_failed_and_frees_its_shard(self, bench: Make) -> None:
        here = bench()
        here.produce(temperatures(3))
        self.started(here)
        assert here.tick().skip_message == "run 1a2b3c4d is starting; lag 3"
        here.clock.seconds = 30
        assert len(here.tick().run_requests) == 1
        here.clock.seconds = 60
        assert len(here.tick().run_requests) == 1
        assert self.status(here) == dg.DagsterRunStatus.STARTED, "a tick with a launch reports no ghost"
        here.drain()
        assert here.tick().skip_message == "caught up: lag 0"
        assert self.status(here) == dg.DagsterRunStatus.FAILURE
        assert "no session with PostgreSQL" in here.said(RUN)

    def test_a_run_with_a_session_is_no_ghost(self, bench: Make) -> None:
        here = bench()
        drained(here, 2)
        self.started(here)
        with owned_by(here, RUN):
            for seconds in (30, 60, 90):
                here.clock.seconds = seconds
                assert here.tick().skip_message == "run 1a2b3c4d is draining; lag 0"
        assert self.status(here) == dg.DagsterRunStatus.STARTED

    def test_a_run_by_hand_is_no_ghost(self, bench: Make) -> None:
        here = bench()
        drained(here, 2)
        self.started(here, **{tags.SHARD: ""})
        for seconds in (30, 60, 90):
            here.clock.seconds = seconds
            here.tick()
        assert self.status(here) == dg.DagsterRunStatus.STARTED

    def test_an_owner_frozen_inside_copy_is_a_ghost(self, bench: Make) -> None:
        """No time-out of PostgreSQL ends the frozen session. The next run does."""
        here = bench()
        here.clients.database().copy_looks.frozen_seconds = 0
        drained(here, 2)
        here.produce(temperatures(3))
        self.started(here)
        with here.clients.database().connect("asking for the keys") as connection:
            key = locks.lock_keys(connection, "ingest", "temperature").key("own", 0)
        with psycopg.connect(here.url, autocommit=True, application_name=f"ingest {RUN}") as frozen:
            frozen.execute("select pg_advisory_lock(%s)", [key])
            frozen.execute("create temp table anything (line text)")
            with pytest.raises(psycopg.errors.AdminShutdown), frozen.cursor().copy("copy anything from stdin"):
                here.clock.seconds = 30
                assert here.tick().skip_message == "run 1a2b3c4d is draining; lag 3", "one tick is not enough"
                assert len(here.tick().run_requests) == 1
                here.drain()
                assert here.rows() == 5
                here.clock.seconds = 60
                assert here.tick().skip_message == "caught up: lag 0"
                assert self.status(here) == dg.DagsterRunStatus.FAILURE


def failing_tick(here: Bench) -> str:
    """The tick's one line. The promise is 10 s. A busy machine gets twice the time."""
    started_at = time.monotonic()
    with pytest.raises(dg.Failure) as caught:
        here.tick()
    assert time.monotonic() - started_at < 20
    description: Any = caught.value.description
    assert "\n" not in description
    return str(description)


class TestServersAway:
    def test_postgres(self, bench: Make, topic: Callable[..., str], own_postgres: Any) -> None:
        here = bench(DATABASE_URL=own_postgres.url)
        drained(here, 2)
        assert here.tick().skip_message == "caught up: lag 0"
        own_postgres.stop()
        said = failing_tick(here)
        assert own_postgres.url.rpartition("@")[2] in said
        assert own_postgres.url.split(":")[2].split("@")[0] not in said
        own_postgres.start()
        assert here.tick().skip_message == "caught up: lag 0"

    @pytest.mark.slow
    def test_kafka(self, bench: Make, own_kafka: RealKafka) -> None:
        topic = f"temperature-{uuid.uuid4().hex[:8]}"
        own_kafka.create_topic(topic, 2)
        here = bench([replace(TEMPERATURE, topic=topic)], KAFKA_BOOTSTRAP_SERVERS=own_kafka.bootstrap_servers)
        drained(here, 2)
        assert here.tick().skip_message == "caught up: lag 0"
        own_kafka.stop()
        assert own_kafka.bootstrap_servers in failing_tick(here)
        own_kafka.start()
        assert here.tick().skip_message == "caught up: lag 0"

    def test_a_server_that_was_never_there(self, bench: Make) -> None:
        here = bench(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
        assert "127.0.0.1:9" in failing_tick(here)

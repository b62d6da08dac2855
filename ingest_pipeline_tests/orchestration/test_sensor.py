"""Ticks of a real sensor against real Kafka and PostgreSQL."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
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


def test_the_log_has_the_reason_once_while_records_wait(make_bench: Make, capfd: pytest.CaptureFixture[str]) -> None:
    bench = make_bench()
    drained(bench, 3)
    assert bench.tick().skip_message == "caught up: lag 0"
    bench.context.ledger.pause("index build", "ann")
    bench.produce(temperatures(2))
    reasons = [bench.tick().skip_message for _ in range(2)]
    assert all("index build (ann)" in str(reason) for reason in reasons)
    bench.produce(temperatures(1))
    bench.tick()
    log = capfd.readouterr().err
    assert log.count("index build") == 1
    assert "caught up" not in log


class TestLag:
    def test_a_run_is_requested_for_a_shard_with_lag(self, make_bench: Make) -> None:
        bench = make_bench()
        bench.produce(temperatures(3))
        (request,) = bench.tick().run_requests
        assert request.run_config == {}
        assert request.tags[tags.STREAM] == "temperature"
        assert request.tags[tags.SHARD] == "0/1"
        assert request.tags["dagster/max_runtime"] == "1260"
        assert len(request.tags[tags.DEFINITION]) == 12
        assert tags.SUCCESSOR not in request.tags

    def test_every_shard_has_its_own_lag(self, make_bench: Make) -> None:
        bench = make_bench(partitions=3, PARALLELISM="2")
        bench.produce(temperatures(6, partitions=3))
        bench.drain("0/2")
        (request,) = bench.tick().run_requests
        assert request.tags[tags.SHARD] == "1/2"

    def test_dagster_is_asked_once_while_the_stream_is_idle(
        self, make_bench: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench, questions = make_bench(), []
        drained(bench, 3)
        records = bench.instance.get_run_records

        def counted(runs: dg.RunsFilter, limit: int | None = None) -> Any:
            if runs.job_name is not None:  # the other question is about active runs
                questions.append(runs)
            return records(runs, limit=limit)

        monkeypatch.setattr(bench.instance, "get_run_records", counted)
        for _ in range(3):
            assert bench.tick().skip_message == "caught up: lag 0"
        assert len(questions) == 1
        bench.produce(temperatures(1, first=3))
        assert len(bench.tick().run_requests) == 1
        bench.drain()
        bench.tick()
        assert len(questions) == 3, "after a run Dagster is asked again"

    def test_the_skip_message_names_the_owner_and_the_lag(self, make_bench: Make) -> None:
        bench = make_bench()
        drained(bench, 2)
        bench.produce(temperatures(1234))
        with owned_by(bench, RUN):
            outcome = bench.tick()
        assert outcome.run_requests == []
        assert outcome.skip_message == "run 1a2b3c4d is draining; lag 1,234"
        (_,) = wait_for("its session's end", lambda: bench.tick().run_requests)

    def test_the_skip_message_names_who_paused_and_why(self, make_bench: Make) -> None:
        bench = make_bench()
        drained(bench, 2)
        bench.produce(temperatures(7))
        ledger = bench.clients.ledger(bench.stream)
        ledger.pause("table is being rebuilt", "ann")
        message = bench.tick().skip_message or ""
        assert re.fullmatch(r"paused: table is being rebuilt \(ann\), since 20[-\d]+ [\d:]+ UTC; lag 7", message)
        ledger.resume()
        assert len(bench.tick().run_requests) == 1

    def test_a_tick_reads_no_record_and_makes_no_consumer(
        self, make_bench: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> NoReturn:
            pytest.fail("a tick made a consumer")

        bench = make_bench()
        bench.produce(temperatures(3))
        monkeypatch.setattr(bench.clients, "source", refuse)
        assert len(bench.tick().run_requests) == 1
        assert bench.query("select to_regclass('ingest.position')") == [None]


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

    def tick(self, bench: Bench, idle_poll: IdlePoll) -> dg.SensorResult:
        outcome = sensor.tick(dg.build_sensor_context(instance=bench.instance), [bench.context], idle_poll=idle_poll)
        assert isinstance(outcome, dg.SensorResult)
        return outcome

    def test_a_record_between_two_ticks_is_launched_for_at_once(self, make_bench: Make) -> None:
        bench = make_bench()
        drained(bench, 3)
        idle_poll = CountedPoll(lambda: bench.produce(temperatures(1, first=3)))
        (request,) = self.tick(bench, idle_poll).run_requests or []
        assert (request.tags[tags.SHARD], idle_poll.count) == ("0/1", 1)

    def test_a_pause_between_two_ticks_prevents_the_launch(self, make_bench: Make) -> None:
        def pause_and_produce() -> None:
            bench.clients.ledger(bench.stream).pause("a test", "ann")
            bench.produce(temperatures(1, first=3))

        bench = make_bench()
        drained(bench, 3)
        outcome = self.tick(bench, CountedPoll(pause_and_produce))
        assert outcome.run_requests == []
        assert str(outcome.skip_reason).startswith("SkipReason(skip_message='paused: a test (ann)")

    def test_the_view_is_dated_before_the_poll(self, make_bench: Make) -> None:
        bench, meanwhile = make_bench(), []
        drained(bench, 3)
        context = dg.build_sensor_context(instance=bench.instance)
        idle_poll = CountedPoll(lambda: meanwhile.append(time.time()))
        view = read(context, [bench.context], SensorMemory(), idle_poll=idle_poll).view
        assert [view.now <= moment for moment in meanwhile] == [True]

    def test_no_poll_with_lag_an_owner_or_a_pause(self, make_bench: Make) -> None:
        bench, idle_poll = make_bench(), CountedPoll()
        bench.produce(temperatures(3))
        self.tick(bench, idle_poll)
        bench.drain()
        with owned_by(bench, RUN):
            self.tick(bench, idle_poll)
        bench.clients.ledger(bench.stream).pause("a test", "ann")
        self.tick(bench, idle_poll)
        assert idle_poll.count == 0
        bench.clients.ledger(bench.stream).resume()
        self.tick(bench, idle_poll)
        assert idle_poll.count == 1


def test_after_a_change_of_the_number_of_shards_a_successor_is_launched_at_once(make_bench: Make) -> None:
    bench = make_bench(partitions=1, PARALLELISM="2")
    bench.produce(temperatures(1, partitions=1))
    bench.drain("0/2")
    old = {tags.STREAM: "temperature", tags.SHARD: "0/1"}
    create_run_for_test(bench.instance, "drain_temperature", RUN, status=dg.DagsterRunStatus.STARTED, tags=old)
    with owned_by(bench, RUN):
        (request,) = bench.tick().run_requests
    assert (request.tags[tags.SHARD], request.tags[tags.SUCCESSOR]) == ("0/2", "reshard")


class TestSupersededStarts:
    def test_a_run_before_its_start_is_canceled_and_replaced(self, make_bench: Make) -> None:
        bench = make_bench()
        bench.produce(temperatures(3))
        run_tags = {tags.STREAM: "temperature", tags.SHARD: "0/1", tags.DEFINITION: "0123456789ab"}
        create_run_for_test(
            bench.instance, "drain_temperature", RUN, status=dg.DagsterRunStatus.STARTING, tags=run_tags
        )
        assert len(bench.tick().run_requests) == 1
        run = bench.instance.get_run_by_id(RUN)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.CANCELED
        assert "this run has not started" in bench.said(RUN)


class TestATopicThatAppears:
    def test_a_new_topic_is_read_from_its_beginning(self, make_bench: Make, kafka_server: RealKafka) -> None:
        bench = make_bench(partitions=0, START_FROM="latest")
        outcome = bench.tick()
        assert outcome.run_requests == []
        assert bench.stream.topic in outcome.skip_message
        assert outcome.skip_message.endswith("The sensor waits for the topic")
        kafka_server.create_topic(bench.stream.topic, 2)
        try:
            bench.produce(temperatures(5))
            assert len(bench.tick().run_requests) == 1
            bench.drain()
            assert bench.rows() == 5
        finally:
            kafka_server.delete_topic(bench.stream.topic)

    def test_an_old_topic_is_read_from_start_from(self, make_bench: Make) -> None:
        bench = make_bench(START_FROM="latest")
        bench.produce(temperatures(5))
        assert len(bench.tick().run_requests) == 1
        bench.drain()
        bench.produce(temperatures(2))
        bench.drain()
        assert bench.rows() == 2


class TestGhosts:
    def started(self, bench: Bench, **more: str) -> dg.DagsterRun:
        """A run that is STARTED in Dagster and has no process."""
        definition = tags.definition_of(bench.stream, bench.settings)
        run_tags = {tags.STREAM: "temperature", tags.SHARD: "0/1", tags.DEFINITION: definition, **more}
        return create_run_for_test(
            bench.instance,
            job_name="drain_temperature",
            run_id=RUN,
            status=dg.DagsterRunStatus.STARTED,
            tags={name: value for name, value in run_tags.items() if value},
        )

    def status(self, bench: Bench) -> dg.DagsterRunStatus:
        run = bench.instance.get_run_by_id(RUN)
        assert run is not None
        return run.status

    def test_a_ghost_is_reported_failed_and_frees_its_shard(self, make_bench: Make) -> None:
        bench = make_bench()
        bench.produce(temperatures(3))
        self.started(bench)
        assert bench.tick().skip_message == "run 1a2b3c4d is starting; lag 3"
        bench.clock.seconds = 30
        assert len(bench.tick().run_requests) == 1
        bench.clock.seconds = 60
        assert len(bench.tick().run_requests) == 1
        assert self.status(bench) == dg.DagsterRunStatus.STARTED, "a tick with a launch reports no ghost"
        bench.drain()
        assert bench.tick().skip_message == "caught up: lag 0"
        assert self.status(bench) == dg.DagsterRunStatus.FAILURE
        assert "no session with PostgreSQL" in bench.said(RUN)

    def test_a_run_with_a_session_is_no_ghost(self, make_bench: Make) -> None:
        bench = make_bench()
        drained(bench, 2)
        self.started(bench)
        with owned_by(bench, RUN):
            for seconds in (30, 60, 90):
                bench.clock.seconds = seconds
                assert bench.tick().skip_message == "run 1a2b3c4d is draining; lag 0"
        assert self.status(bench) == dg.DagsterRunStatus.STARTED

    def test_a_run_by_hand_is_no_ghost(self, make_bench: Make) -> None:
        bench = make_bench()
        drained(bench, 2)
        self.started(bench, **{tags.SHARD: ""})
        for seconds in (30, 60, 90):
            bench.clock.seconds = seconds
            bench.tick()
        assert self.status(bench) == dg.DagsterRunStatus.STARTED

    def test_an_owner_frozen_inside_copy_is_a_ghost(self, make_bench: Make) -> None:
        """No time-out of PostgreSQL ends the frozen session. The next run does."""
        bench = make_bench()
        bench.clients.database().copy_looks.frozen_seconds = 0
        drained(bench, 2)
        bench.produce(temperatures(3))
        self.started(bench)
        with bench.clients.database().connect("asking for the keys") as connection:
            key = locks.LockKeys(locks.position_table_oid(connection, "ingest"), "temperature").key("own", 0)
        bench.query("create table anything (line text)")
        url = bench.environ["DATABASE_URL"]  # a run sees and ends sessions of its own role alone
        with psycopg.connect(url, autocommit=True, application_name=f"ingest {RUN}") as frozen:
            frozen.execute("select pg_advisory_lock(%s)", [key])
            with pytest.raises(psycopg.errors.AdminShutdown), frozen.cursor().copy("copy anything from stdin"):
                bench.clock.seconds = 30
                assert bench.tick().skip_message == "run 1a2b3c4d is draining; lag 3", "one tick is not enough"
                assert len(bench.tick().run_requests) == 1
                bench.drain()
                assert bench.rows() == 5
                bench.clock.seconds = 60
                assert bench.tick().skip_message == "caught up: lag 0"
                assert self.status(bench) == dg.DagsterRunStatus.FAILURE


def failing_tick(bench: Bench) -> str:
    """The tick's one line."""
    with pytest.raises(dg.Failure) as caught:
        bench.tick()
    description: Any = caught.value.description
    assert "\n" not in description
    return str(description)


class TestServersAway:
    def test_postgres(self, make_bench: Make, topic: Callable[..., str], own_postgres: Any) -> None:
        bench = make_bench(DATABASE_URL=own_postgres.url)
        drained(bench, 2)
        assert bench.tick().skip_message == "caught up: lag 0"
        own_postgres.stop()
        message = failing_tick(bench)
        assert own_postgres.url.rpartition("@")[2] in message
        assert own_postgres.url.split(":")[2].split("@")[0] not in message
        own_postgres.start()
        assert bench.tick().skip_message == "caught up: lag 0"

    def test_a_server_that_was_never_there(self, make_bench: Make) -> None:
        bench = make_bench(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
        assert "127.0.0.1:9" in failing_tick(bench)

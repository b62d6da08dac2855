"""Runs that drain several streams of one job, on real Kafka and PostgreSQL."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import dagster as dg
import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from dagster._core.execution.execute_in_process_result import ExecuteInProcessResult

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.checks import WITHIN_LIMIT, newest_evaluation
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import Bench, failure
from ingest_pipeline_tests.orchestration.records import Record, prices, temperatures

pytestmark = pytest.mark.kafka
JOB = "sites"
PRICE, TEMPERATURE = (replace(stream, job=JOB) for stream in sorted(STREAMS, key=lambda stream: stream.name))
INDOORS = replace(TEMPERATURE, name="indoors", topic="indoors", table="indoors", topic_asset="")
Make = Callable[..., Bench]
BROKEN = Record(b"{", partition=0)


@pytest.fixture
def shared(make_bench: Make) -> Bench:
    """Streams indoors, price and temperature, with one partition each and 20 records."""
    bench = make_bench([INDOORS, PRICE, TEMPERATURE], partitions=1, BATCH_SIZE="10")
    for stream in bench.streams:
        bench.produce(records_of(stream, 20), stream)
    return bench


def records_of(stream: Stream, count: int) -> list[Record]:
    make = prices if stream.name == PRICE.name else temperatures
    return list(make(count, partitions=1))


def by_sensor(bench: Bench, shard: str = "0/1", **more: str) -> ExecuteInProcessResult:
    """A run with the tags of the job's sensor."""
    job = bench.definitions.resolve_job_def(tags.job_name(JOB))
    run_tags = {**tags.drain_tags(JOB, bench.streams), tags.SHARD: shard, **more}
    return job.execute_in_process(instance=bench.instance, tags=run_tags, raise_on_error=False)


def rows(bench: Bench) -> dict[str, int]:
    return {stream.name: bench.rows(stream) for stream in bench.streams}


def materialized(bench: Bench, result: ExecuteInProcessResult) -> Mapping[str, int]:
    """Asset → rows of its materialization."""
    entries = bench.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events = [entry.get_dagster_event() for entry in entries]
    return {
        event.asset_key.to_user_string(): event.materialization.metadata["rows"].value  # type: ignore[union-attr, misc]
        for event in events
    }


def test_one_run_stores_the_records_of_all_streams(shared: Bench) -> None:
    result = by_sensor(shared)
    assert result.success, failure(result)
    assert rows(shared) == {"indoors": 20, "price": 20, "temperature": 20}
    assert materialized(shared, result) == {"indoors": 20, "price": 20, "temperature": 20}
    assert shared.outcome(result.run_id) == ("caught-up", "60")


def test_the_next_run_stores_what_has_come_since(shared: Bench) -> None:
    assert by_sensor(shared).success
    shared.produce(records_of(PRICE, 5), shared.streams[1])
    assert by_sensor(shared).success
    assert rows(shared) == {"indoors": 20, "price": 25, "temperature": 20}


def test_shards_share_the_streams_of_a_job(make_bench: Make) -> None:
    bench = make_bench([INDOORS, PRICE, TEMPERATURE], partitions=1, SITES_PARALLELISM="2")
    for stream in bench.streams:
        bench.produce(records_of(stream, 20), stream)
    assert by_sensor(bench, "0/2").success
    assert rows(bench) == {"indoors": 20, "price": 0, "temperature": 20}
    assert by_sensor(bench, "1/2").success
    assert rows(bench) == {"indoors": 20, "price": 20, "temperature": 20}


def test_materialize_drains_the_selected_stream_alone(shared: Bench) -> None:
    result = shared.by_hand(shared.streams[1])
    assert result.success, failure(result)
    assert (shared.rows(shared.streams[1]), list(materialized(shared, result))) == (20, ["price"])
    assert shared.query("SELECT DISTINCT stream FROM ingest.position") == ["price"]


class TestTroubleOfOneStream:
    def test_beyond_the_dead_letter_limit_the_run_fails_and_names_the_stream(self, shared: Bench) -> None:
        shared.produce([BROKEN] * 200, shared.streams[1])
        result = by_sensor(shared)
        assert not result.success
        assert "price" in failure(result)
        assert (rows(shared)["indoors"], rows(shared)["temperature"]) == (20, 20)
        assert list(materialized(shared, result)) == ["indoors", "temperature"]
        run_tags = shared.run_tags(result.run_id)
        assert run_tags[tags.FAILED_STREAMS] == "price"
        assert run_tags[tags.ENDED] == "failed:DeadLetterLimit"
        state = shared.clients.ledger(shared.streams[1]).state()
        assert (state.failure_stops, state.failure in failure(result)) == (True, True)
        assert shared.clients.ledger(shared.streams[0]).state().failure is None
        check = newest_evaluation(shared.instance, dg.AssetKey("price"), WITHIN_LIMIT)
        assert check is not None
        assert not check.passed

    def test_a_locked_table_delays_no_other_stream_and_is_stored_when_it_is_free(self, shared: Bench) -> None:
        assert by_sensor(shared).success
        for stream in shared.streams:
            shared.produce(records_of(stream, 20), stream)
        stored_at: list[float] = []

        def unlock_when_the_others_are_stored() -> None:
            with psycopg.connect(shared.url) as other:
                other.execute("LOCK TABLE price")
                locked.set()
                while rows_besides(shared, "price") < 80:
                    time.sleep(0.05)
                stored_at.append(time.monotonic())

        locked = threading.Event()
        locker = threading.Thread(target=unlock_when_the_others_are_stored)
        locker.start()
        assert locked.wait(120)
        result = by_sensor(shared)
        locker.join(120)
        assert stored_at, "the other streams were stored while the table was locked"
        assert result.success, failure(result)
        assert rows(shared) == {"indoors": 40, "price": 40, "temperature": 40}

    def test_a_paused_stream_leaves_the_others_alone(self, shared: Bench) -> None:
        price = shared.clients.ledger(shared.streams[1])
        price.prepare()
        price.pause("index build", "ann")
        result = by_sensor(shared)
        assert result.success, failure(result)
        assert rows(shared) == {"indoors": 20, "price": 0, "temperature": 20}

    def test_a_deleted_topic_and_a_table_not_as_declared_leave_the_others_alone(self, shared: Bench) -> None:
        assert by_sensor(shared).success
        topic = shared.streams[1].topic
        admin = AdminClient({"bootstrap.servers": shared.bootstrap_servers})
        admin.delete_topics([topic])[topic].result(30)
        shared.query("ALTER TABLE indoors DROP COLUMN temperature")
        for stream in (shared.streams[0], shared.streams[2]):
            shared.produce(records_of(stream, 5), stream)
        result = by_sensor(shared)
        assert not result.success
        assert "price" in failure(result) and "indoors" in failure(result)
        assert rows(shared) == {"indoors": 20, "price": 20, "temperature": 25}

    def test_a_refused_stream_fails_a_run_that_owns_nothing(self, shared: Bench) -> None:
        assert by_sensor(shared).success
        topic = shared.streams[1].topic
        admin = AdminClient({"bootstrap.servers": shared.bootstrap_servers})
        admin.delete_topics([topic])[topic].result(30)
        connection = shared.clients.writing_connection("0ddba11-and-more")
        try:
            for stream in (shared.streams[0], shared.streams[2]):
                shared.clients.ledger_session(connection, stream).own([0], exact=True)
            result = by_sensor(shared)
        finally:
            connection.close()
        assert not result.success
        assert "price" in failure(result)
        assert shared.run_tags(result.run_id)[tags.FAILED_STREAMS] == "price"
        assert shared.clients.ledger(shared.streams[0]).state().failure is None

    def test_a_stream_of_another_run_is_left_to_it(self, shared: Bench) -> None:
        assert by_sensor(shared).success
        for stream in shared.streams:
            shared.produce(records_of(stream, 5), stream)
        connection = shared.clients.writing_connection("0ddba11-and-more")
        try:
            shared.clients.ledger_session(connection, shared.streams[1]).own([0], exact=True)
            result = by_sensor(shared)
        finally:
            connection.close()
        assert result.success, failure(result)
        assert rows(shared) == {"indoors": 25, "price": 20, "temperature": 25}


def rows_besides(bench: Bench, name: str) -> int:
    return sum(bench.rows(stream) for stream in bench.streams if stream.name != name)


def test_a_run_keeps_one_session_with_postgresql(make_bench: Make) -> None:
    bench = make_bench([INDOORS, PRICE, TEMPERATURE], partitions=1, RUN_IDLE_SECONDS="5")
    for stream in bench.streams:
        bench.produce(records_of(stream, 20), stream)
    assert bench.by_hand().success
    for stream in bench.streams:
        bench.produce(records_of(stream, 20), stream)
    sessions: list[list[str]] = []

    def look() -> None:
        while rows_besides(bench, "") < 120:
            time.sleep(0.05)
        for _ in range(20):
            time.sleep(0.1)
            sessions.append(bench.query("SELECT backend_type FROM pg_stat_activity WHERE application_name ~ '^ingest'"))

    looker = threading.Thread(target=look)
    looker.start()
    result = by_sensor(bench)
    looker.join(60)
    assert result.success, failure(result)
    assert sessions == [["client backend"]] * 20


def test_what_did_not_change_is_not_reported(shared: Bench) -> None:
    assert by_sensor(shared).success
    shared.produce(records_of(PRICE, 5), shared.streams[1])
    result = by_sensor(shared)
    assert result.success, failure(result)
    assert materialized(shared, result) == {"price": 5}
    events = shared.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    assert events == [], "every check has passed before"
    planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    assert shared.instance.all_logs(result.run_id, of_type=planned) == []

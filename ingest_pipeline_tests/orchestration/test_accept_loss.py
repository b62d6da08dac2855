"""`ingest accept-loss` beside runs that live, and for one of two lost partitions."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingest_pipeline.core.record import Batch, CommitResult
from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.orchestration.bench import Bench, failure, metadata, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import Record, temperatures
from ingest_pipeline_tests.orchestration.test_data_loss import (
    ACCOUNTING,
    GAPS,
    assert_still,
    delete_before,
    devices,
    refused,
    stored,
)
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]
ACCEPT = ("accept-loss", "temperature", "--yes")
WAIT_SECONDS = 180.0


def wait_for_rows(bench: Bench, count: int) -> None:
    wait_for("rows", lambda: bench.query("select to_regclass('temperature')") != [None] and bench.rows() == count)


def in_partition(partition: int, count: int, first: int) -> list[Record]:
    return [record._replace(partition=partition) for record in devices(first, count)]


def test_a_run_that_drains_the_partition_yields(make_bench: Make) -> None:
    """A deployment names another topic while a run of the one before it waits for records of the old topic."""
    old = make_bench(partitions=1, RUN_IDLE_SECONDS="60")
    old.produce(devices(0, 5))
    new = make_bench(partitions=1, KAFKA_GROUP_PREFIX=old.environ["KAFKA_GROUP_PREFIX"])
    new.produce(devices(100, 3))
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(old.by_sensor)
        wait_for_rows(old, 5)
        assert "its positions belong to" in refused(new)
        assert not run.done()
        printed = ingest(new, *ACCEPT)
        result = run.result(WAIT_SECONDS)
    assert "begins again at offset 0, under a new kafka_incarnation. The old position is kept at 5" in printed
    assert old.outcome(result.run_id) == ("yielded", "5")
    old.produce(devices(5, 2))
    new.drain()
    assert stored(new) == [*((n, f"dev-{n:04}") for n in range(5)), *((n, f"dev-{100 + n:04}") for n in range(3))]
    assert new.query("select kafka_partition, kafka_incarnation, from_offset, to_offset from ingest.gap") == [
        (0, 1, 5, 5)
    ]
    assert new.query('select "rows", next_offset, current from ingest.accounting order by kafka_incarnation') == [
        (5, 5, False),
        (3, 3, True),
    ]
    assert new.query(ACCOUNTING) == [True]


def test_records_that_a_run_has_in_hand_are_not_given_up(make_bench: Make, kafka_server: RealKafka) -> None:
    """Retention takes what a run has read and not yet committed: that run ends first, and then nothing is lost."""
    bench = make_bench(partitions=1, RUN_IDLE_SECONDS="60", BATCH_SIZE="10", BATCH_TIMEOUT="30")
    hold, in_hand, go_on = threading.Event(), threading.Event(), threading.Event()

    def write_late(write: Callable[[Batch], CommitResult], batch: Batch) -> CommitResult:
        if hold.is_set():
            in_hand.set()
            assert go_on.wait(WAIT_SECONDS)
        return write(batch)

    bench.clients.changes["ledger_session"]["write"] = write_late
    bench.produce(devices(0, 10))
    with ThreadPoolExecutor(2) as threads:
        run = threads.submit(bench.by_sensor)
        try:
            wait_for_rows(bench, 10)
            hold.set()
            bench.produce(devices(10, 10))
            assert in_hand.wait(WAIT_SECONDS)
            delete_before(kafka_server, bench.stream.topic, 15)
            accepting = threads.submit(ingest, bench, *ACCEPT, code=1)
            sessions = "select count(*) from pg_stat_activity where application_name like 'ingest accept-loss%'"
            wait_for("somebody who accepts", lambda: bench.query(sessions) == [1])
            assert not accepting.done()
        finally:
            go_on.set()
        printed, result = accepting.result(WAIT_SECONDS), run.result(WAIT_SECONDS)
    assert "offsets 10 to 14 were deleted before they were read" in printed
    assert "partition 0 has moved meanwhile. Look at the loss again" in printed
    assert bench.outcome(result.run_id) == ("yielded", "20")
    assert "nothing to accept" in ingest(bench, *ACCEPT)
    assert stored(bench) == [(n, f"dev-{n:04}") for n in range(20)]
    assert bench.query(GAPS) == []
    assert bench.query('select "rows", lost, next_offset from ingest.position') == [(20, 0, 20)]


def test_a_run_of_another_shard_is_left_alone(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=2, PARALLELISM="2", RUN_IDLE_SECONDS="110")
    bench.produce(temperatures(10))
    assert bench.by_hand().success
    definition = tags.definition_of(bench.stream, bench.settings)
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(bench.by_sensor, "1/2", **{tags.DEFINITION: definition})
        try:
            bench.produce(in_partition(1, 1, first=10))
            wait_for_rows(bench, 11)
            bench.produce(in_partition(0, 5, first=20))
            delete_before(kafka_server, bench.stream.topic, 8)
            assert "partition 0: offsets 5 to 7 were deleted" in failure(bench.by_sensor("0/2"))
            assert "partition 0: offsets 5 to 7 were deleted" in refused(bench)
            assert "offsets 5 to 7 (3) are recorded as lost. Reading continues at 8" in ingest(bench, *ACCEPT)
            assert [request.tags[tags.SHARD] for request in bench.tick().run_requests or []] == ["0/2"]
            by_hand = bench.by_hand()
            assert "partition 1: run " in metadata(by_hand, bench.stream)["drained_by_others"]
            bench.produce(in_partition(1, 1, first=11))
            wait_for_rows(bench, 14)
        finally:
            bench.clients.ledger(bench.stream).pause("it is enough", "ann")
        result = run.result(WAIT_SECONDS)
    assert bench.outcome(result.run_id) == ("paused", "2")
    assert bench.positions() == {0: 10, 1: 7}
    assert bench.query(GAPS) == [(0, 1, 5, 8, "retention")]
    assert bench.query('select "rows", lost from ingest.position order by kafka_partition') == [(7, 3), (7, 0)]
    assert bench.query(ACCOUNTING) == [True]


def test_only_the_named_partition_is_accepted(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=2)
    bench.produce(temperatures(10))
    bench.drain()
    bench.produce(temperatures(10, first=10))
    delete_before(kafka_server, bench.stream.topic, 7, partition=0)
    delete_before(kafka_server, bench.stream.topic, 8, partition=1)
    assert_still(bench, "partition 0: offsets 5 to 6 were deleted", "(and 1 more partitions)")
    assert "nothing to accept" in ingest(bench, *ACCEPT, "--partition", "2")
    printed = ingest(bench, *ACCEPT, "--partition", "1")
    assert "partition 1: offsets 5 to 7 (3) are recorded as lost. Reading continues at 8" in printed
    assert "partition 0" not in printed
    assert bench.positions() == {0: 5, 1: 8}
    assert bench.query(GAPS) == [(1, 1, 5, 8, "retention")]
    assert bench.query("select kafka_partition, next_offset, low from ingest.loss") == [(0, 5, 7)]
    assert_still(bench, "partition 0: offsets 5 to 6 were deleted")
    assert "more partitions" not in refused(bench)
    ingest(bench, *ACCEPT, "--partition", "0")
    bench.drain()
    assert bench.query(GAPS) == [(1, 1, 5, 8, "retention"), (0, 1, 5, 7, "retention")]
    assert bench.query("select kafka_partition, kafka_offset from temperature order by 1, 2") == [
        *((0, offset) for offset in (*range(5), *range(7, 10))),
        *((1, offset) for offset in (*range(5), *range(8, 10))),
    ]
    assert bench.query(ACCOUNTING) == [True]

"""Replay beside a drain that stores, and beside a redrive of the same range, on real Kafka and PostgreSQL."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.ledger import LetterFilter, Redriven, Replayed
from ingest_pipeline.core.roles import Role
from ingest_pipeline.operations.replays import ReplayRequest, ranges, run_replay
from ingest_pipeline.postgres.dead_letters import CHUNK, DeadLetters
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import Record, temperatures, with_broken
from ingest_pipeline_tests.orchestration.test_data_loss import ACCOUNTING, devices

pytestmark = [pytest.mark.kafka, pytest.mark.role(Role.OPERATOR)]
Make = Callable[..., Bench]
LEDGER = "select * from ingest.position"
WAIT_SECONDS = 180.0


def test_a_replay_beside_a_drain_that_stores(make_bench: Make) -> None:
    """While a transaction of the replay is open, the drain commits new records of both partitions."""
    bench = make_bench(partitions=2, RUN_IDLE_SECONDS="60", BATCH_SIZE="100")
    bench.produce([*with_broken(temperatures(300), 50), Record(None, 0), Record(None, 1)])
    lots: list[int] = []

    def with_new_records(redriven: Callable[..., None], *rest: Any) -> None:
        committed = bench.rows()
        lots.append(committed)
        bench.produce(temperatures(10, first=1000 * len(lots)))
        wait_for("the drain's rows", lambda: bench.rows() == committed + 10)
        redriven(*rest)

    bench.clients.changes["missing_rows"]["_settle"] = with_new_records
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(bench.by_sensor)
        begun = "select to_regclass('ingest.position')"
        wait_for("the drain", lambda: bench.query(begun) != [None] and bench.positions() == {0: 151, 1: 151})
        bench.query("delete from temperature where kafka_offset % 3 = 0")
        left = bench.rows()
        soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 3600))
        words = ("replay", "temperature", "--from-time", "2020-01-01", "--to-time", soon)
        printed = ingest(bench, *words, clients=bench.clients)
        assert not run.done()
        bench.clients.ledger(bench.stream).pause("it is enough", "ann")
        result = run.result(WAIT_SECONDS)
    new = 10 * len(lots)
    assert new >= 40
    assert f"{294 - left} stored, {left} present, 0 absent, 6 dead, 2 skipped, 0 refused" in printed
    assert bench.outcome(result.run_id) == ("paused", str(294 + new))
    assert bench.query("select count(*), count(distinct device_id) from temperature") == [(294 + new,) * 2]
    sums = 'select sum("rows")::int, sum(dead_letters)::int, sum(skipped)::int, sum(next_offset)::int'
    assert bench.query(f"{sums} from ingest.position") == [(294 + new, 6, 2, 302 + new)]
    assert bench.query(ACCOUNTING) == [True]


class Held:
    """The first call waits, inside its open transaction, until it is let go."""

    def __init__(self) -> None:
        self._reached, self._go_on = threading.Event(), threading.Event()

    def __call__(self, method: Callable[..., Any], *arguments: Any) -> Any:
        if not self._reached.is_set():
            self._reached.set()
            assert self._go_on.wait(WAIT_SECONDS)
        return method(*arguments)

    def __enter__(self) -> None:
        assert self._reached.wait(WAIT_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._go_on.set()


class Range:
    """100 offsets: the table refused 20, which it would take today, and of the 80 rows some were deleted."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        bench.drain()
        bench.query("alter table temperature add constraint few check (device_id !~ '[37]$')")
        bench.produce(devices(0, 100))
        bench.drain()
        bench.query("alter table temperature drop constraint few")
        bench.query("delete from temperature where kafka_offset % 3 = 0")
        self.left = bench.rows()
        self.missing = 80 - self.left
        self._ledger = bench.query(LEDGER)

    def redrive(self, chunk: int = CHUNK, held: Held | None = None) -> Redriven:
        letters: Any = DeadLetters(self.bench.clients.database(), self.bench.stream, chunk=chunk)
        if held is not None:
            letters._settle = partial(held, letters._settle)
        return letters.redrive(LetterFilter(), JsonDecoder(self.bench.stream).decode)

    def replay(self) -> Replayed:
        context = self.bench.context
        return run_replay(ranges(ReplayRequest(0, 0, 100), context), context)

    def assert_whole(self) -> None:
        """Each row is there once, no letter waits, and the counters are as they were at ingestion."""
        bench = self.bench
        assert bench.query("select kafka_offset from temperature order by 1") == list(range(100))
        assert bench.query("select status, attempts, count(*) from ingest.dead_letter group by 1, 2") == [
            ("redriven", 2, 20)
        ]
        assert bench.query(LEDGER) == self._ledger
        assert bench.query(ACCOUNTING) == [True]
        assert self.replay() == Replayed(present=100)
        assert self.redrive() == Redriven()


@pytest.fixture
def found(make_bench: Make) -> Range:
    return Range(make_bench(partitions=1, DEAD_LETTER_LIMIT="off", BATCH_SIZE="10"))


def test_a_replay_leaves_the_letters_that_a_redrive_has_in_hand(found: Range) -> None:
    held = Held()
    with ThreadPoolExecutor(1) as threads:
        redrive = threads.submit(found.redrive, held=held)
        with held:
            assert found.replay() == Replayed(stored=found.missing, present=found.left, dead=20)
        assert redrive.result(WAIT_SECONDS) == Redriven(stored=20)
    found.assert_whole()


def test_a_redrive_does_not_wait_for_a_replay(found: Range) -> None:
    held = found.bench.clients.changes["missing_rows"]["_settle"] = Held()
    with ThreadPoolExecutor(1) as threads:
        replay = threads.submit(found.replay)
        with held:
            assert found.redrive() == Redriven(stored=20)
        done = replay.result(WAIT_SECONDS)
    assert done.stored == found.missing
    assert done.present + done.dead == found.left + 20
    found.assert_whole()


def test_a_replay_and_a_redrive_that_race_store_each_row_once(found: Range) -> None:
    held = found.bench.clients.changes["missing_rows"]["_settle"] = Held()
    with ThreadPoolExecutor(1) as threads:
        replay = threads.submit(found.replay)
        with held:
            pass
        assert found.redrive(chunk=2) == Redriven(stored=20)
        done = replay.result(WAIT_SECONDS)
    assert done.stored == found.missing
    assert done.present + done.dead == found.left + 20
    found.assert_whole()

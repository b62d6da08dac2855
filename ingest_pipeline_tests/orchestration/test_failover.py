"""PostgreSQL fails over to a standby in the middle of a drain: nothing is lost, nothing is there twice, and whoever was
connected goes on with the new primary."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.metrics import application
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.records import temperatures
from ingest_pipeline_tests.servers.standby import Pair, query

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(400)]
PORTION, PORTIONS = 200, 10
ROWS = "SELECT count(*) FROM temperature"
BOTH = "SELECT count(*), count(DISTINCT (kafka_partition, kafka_offset)) FROM temperature"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path) as made:
        yield made


class Story(threading.Thread):
    """Writes records all the time, fails over while a run drains them, and ends the run when all are rows."""

    def __init__(self, bench: Bench, pair: Pair, fail_over: Callable[[Story], None]) -> None:
        super().__init__()
        self.bench, self.pair, self._fail_over = bench, pair, fail_over
        self.produced = 0
        self.seconds = 0.0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._tell()
        except BaseException as error:
            self.error = error
        finally:
            self.bench.clients.ledger(self.bench.stream).pause("the end", "the test")

    def _tell(self) -> None:
        self.produce()
        wait_for("rows", lambda: query(self.pair.primary, ROWS)[0] >= PORTION)
        self.produce()
        self._fail_over(self)
        failed_over = time.monotonic()
        self.produce()
        wait_for("all rows", lambda: query(self.pair.standby, ROWS)[0] >= self.produced, every=0.1)
        self.seconds = time.monotonic() - failed_over

    def produce(self) -> None:
        for _ in range(PORTIONS):
            self.bench.produce(temperatures(PORTION, first=self.produced))
            self.produced += PORTION


def stop_the_primary(story: Story) -> None:
    """The standby has every commit, since each waited for it."""
    story.pair.primary.crash()
    story.pair.promote()


def fence_the_primary(story: Story) -> None:
    """The old primary lives on, and sessions with it go on to answer."""
    story.pair.fence_primary()
    story.pair.promote()


def lose_commits(story: Story) -> None:
    """The standby is away while more is committed, and knows nothing of that when it is promoted."""
    pair = story.pair
    pair.standby.stop()
    before = query(pair.primary, ROWS)[0]
    story.produce()
    wait_for("commits that the standby misses", lambda: query(pair.primary, ROWS)[0] > before)
    pair.primary.crash()
    pair.standby.start()
    assert query(pair.standby, ROWS)[0] <= before
    pair.promote()


@pytest.mark.parametrize(
    ("fail_over", "synchronous"), [(stop_the_primary, True), (fence_the_primary, False), (lose_commits, False)]
)
def test_a_drain_goes_on_with_the_promoted_standby(
    make_bench: Callable[..., Bench], pair: Pair, fail_over: Callable[[Story], None], synchronous: bool
) -> None:
    bench = make_bench(DATABASE_URL=pair.url, RUN_IDLE_SECONDS="600", BATCH_SIZE="100", RECORDS_PER_COMMIT="100")
    bench.clients.ledger(bench.stream).prepare()
    bench.tick()
    sensor = Clients(bench.settings)  # as in a process of its own, whose session stays with the old primary
    assert not sensor.ledger(bench.stream).state().paused
    if synchronous:
        pair.wait_for_streaming()
        pair.commit_on_both()
    told = Story(bench, pair, fail_over)
    told.start()
    runs = []
    while told.is_alive():
        runs.append(bench.by_sensor())
    told.join()
    assert told.error is None
    print(f"all rows {told.seconds:.1f} s after the fail-over, {len(runs)} runs")
    assert query(pair.standby, BOTH) == [(told.produced, told.produced)]
    assert query(pair.standby, "SELECT sum(next_offset)::int FROM ingest.position") == [told.produced]
    assert query(pair.standby, "SELECT count(*) FROM ingest.loss") == [0]
    assert sensor.ledger(bench.stream).state().paused
    assert (
        sum(position.next_offset for position in sensor.ledger(bench.stream).snapshot().positions.values())
        == told.produced
    )
    sensor.ledger(bench.stream).resume()
    sensor.close()
    bench.produce(temperatures(1, first=told.produced))
    assert len(wait_for("a tick that sees the new primary", lambda: bench.tick().run_requests)) == 1
    assert "ingest_position_offset" in exposed(bench)
    if not synchronous and fail_over is fence_the_primary:
        assert query(pair.primary, "SHOW default_transaction_read_only") == ["on"]


def exposed(bench: Bench) -> str:
    asked = {"PATH_INFO": "/metrics", "REQUEST_METHOD": "GET"}
    return b"".join(application(bench.contexts)(asked, lambda *_: None)).decode()

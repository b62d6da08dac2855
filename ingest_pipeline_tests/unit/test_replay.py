"""The loop of a replay: batches stay within the limits of a drain, and a replay survives an outage."""

import pytest

from ingest_pipeline.core.batch import SLICE_SECONDS, BatchLimits
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import DatabaseUnavailable
from ingest_pipeline.core.ledger import Replayed
from ingest_pipeline.core.record import Batch
from ingest_pipeline.core.replay import Range, replay
from ingest_pipeline.core.rows import RecordRules
from ingest_pipeline.testing import MemoryBroker, MemorySource, SettableClock
from ingest_pipeline_tests.samples import READING, good

RECORD = good("x" * 1000)


class Store:
    """Counts stored batches. The first `faults` calls raise DatabaseUnavailable."""

    def __init__(self, faults: int = 0) -> None:
        self.faults, self.sizes = faults, list[int]()

    def store(self, batch: Batch) -> Replayed:
        if self.faults:
            self.faults -= 1
            raise DatabaseUnavailable("away")
        self.sizes.append(len(batch.rows))
        return Replayed(stored=len(batch.rows))


def replayed(store: Store) -> Replayed:
    clock, broker = SettableClock(), MemoryBroker({"reading": 1})
    for _ in range(50):
        broker.append("reading", 0, RECORD)
    limits = BatchLimits(records=20, size_bytes=10 * len(RECORD), timeout_seconds=SLICE_SECONDS)
    source = MemorySource(broker, clock)
    decode, offsets = JsonDecoder(READING).decode, Range(0, 1, 5, 45)
    return replay(
        source,
        "reading",
        store,
        decode=decode,
        rules=RecordRules(),
        offsets=offsets,
        limits=limits,
        clock=clock,
        retry_seconds=60.0,
    )


def test_a_replayed_batch_stays_within_the_limits_of_a_drain() -> None:
    store = Store()
    assert replayed(store) == Replayed(stored=40)
    assert sum(store.sizes) == 40
    assert max(store.sizes) == 10


def test_a_replay_retries_for_a_while_during_an_outage() -> None:
    assert replayed(Store(faults=3)) == Replayed(stored=40)
    with pytest.raises(DatabaseUnavailable):
        replayed(Store(faults=1000))

"""One run, looked at as it reads, writes, asks and ends: what it has in hand, what it bears, what it has seen."""

from __future__ import annotations

import math
from collections.abc import Collection

from ingest_pipeline.core.backoff import LONGEST_SECONDS
from ingest_pipeline.core.drain import VERIFY_SECONDS
from ingest_pipeline.core.record import Batch, Message
from ingest_pipeline_tests.simulation.model import Key, Version
from ingest_pipeline_tests.simulation.state import SharedState


class Watch:
    """Made as the run reads its settings.

    Attributes:
        stopped_by: the StopStream that a write of this run raised: the run has to end with it.
        saw: the topic that it could compare with its positions last.
    """

    def __init__(self, state: SharedState) -> None:
        self._state, own, job = state, state.own, state.job
        self._most_records = max(own.batch_size, 0 if job.run_max_batches else own.records_per_commit)
        self._most_bytes = own.batch_bytes
        self._patience = job.retry_seconds
        self._hand: dict[tuple[int, int], int] = {}  # (partition, offset) → bytes, read and not committed
        self._began: float | None = None  # when the batch that is being written came to the ledger
        self._asked_at, self._late = 0.0, False
        self.stopped_by = ""
        self.saw = ""

    # --- memory is bounded ------------------------------------------------------------------------------------------

    def reads(self) -> None:
        """About to read: not while a batch waits for the database, and not beyond a full one.

        What is in hand before a read is bounded in bytes, not what the read brings: how many records fit is estimated,
        and the rest is carried. `writes` looks at what a batch is made of.
        """
        assert self._began is None, "more is read though a batch is not written yet"
        held = sum(self._hand.values())
        assert held < self._most_bytes, f"{held} bytes in hand, {self._most_bytes} are a batch, and more is read"
        late = self._now() > self._asked_at + VERIFY_SECONDS
        assert not (late and self._late), "two reads after the topic should have been looked at"
        self._late = late

    def took(self, messages: Collection[Message]) -> None:
        self._hand |= {(message.partition(), message.offset()): len(message) for message in messages}
        assert len(self._hand) <= self._most_records, f"{len(self._hand)} records in hand, {self._most_records} may be"

    def writes(self, batch: Batch) -> None:
        """About to write it, or to write it again."""
        sizes = [size for at, size in self._hand.items() if _within(batch, *at)]
        assert len(sizes) == batch.records, "a batch is of what was read"
        assert sum(sizes) <= self._most_bytes or len(sizes) == 1, f"a batch of {sizes} bytes"
        if self._began is None:
            self._began = self._now()

    def committed(self, batch: Batch) -> None:
        self._hand = {at: size for at, size in self._hand.items() if not _within(batch, *at)}
        self._began = None

    # --- whose topic it is ------------------------------------------------------------------------------------------

    def starts(self) -> None:
        """Its drain begins; it may have waited for its partitions, so the topic is looked at before the first read."""
        self._asked_at, self._late = -math.inf, True

    def asks(self) -> None:
        """Whether the topic is still its own; there may be no answer."""
        self._asked_at, self._late = self._now(), False
        self._state.count["topic looked at again"] += 1

    def compared(self) -> None:
        """It had an answer."""
        self.saw = self._state.model.topic_id

    def stored(self, at: Key, version: Version, topic_id: str | None) -> None:
        """It made a row or a dead letter of this record; `topic_id` is its position's.

        That happens once, under whatever incarnation. Twice only

        - where an acceptance said that what is left is stored again;
        - to what a run read of a topic that was created again before it could see so: that is stored as the old
          topic's, and again as the new one's, once that is accepted. This is known (core.drain.VERIFY_SECONDS).

        Not seen: a tombstone that is skipped twice, and which of several tombstones at an offset a dead letter is of.
        """
        if version.topic_id != topic_id:
            assert self.saw != version.topic_id, f"{at} is of a topic that was seen to be another one"
            self._state.count["stored as of the topic before"] += 1
            return
        assert version.stored in (None, at) or version.again == at[0], f"{at} was stored as {version.stored}"
        self._state.count["stored again, as was said"] += version.stored not in (None, at)
        version.stored = at

    # --- the end ----------------------------------------------------------------------------------------------------

    def ended(self, failed: str, asked_to: str | None) -> None:
        """`failed`: the error that it said; "" for none. `asked_to`: end, by whom."""
        assert self.stopped_by in ("", failed), f"a write raised {self.stopped_by}, the run ended with {failed!r}"
        if failed == "DatabaseUnavailable" and self._began is not None and asked_to is None:
            borne = self._now() - self._began
            assert borne >= self._patience - LONGEST_SECONDS, f"gave up after {borne} s of {self._patience}"

    def _now(self) -> float:
        return self._state.clock.monotonic()


def _within(batch: Batch, partition: int, offset: int) -> bool:
    advance = batch.advances.get(partition)
    return advance is not None and offset < advance.resume_at.next_offset

"""One run, observed as it reads, writes, verifies and ends."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from ingest_pipeline.core.backoff import LONGEST_SECONDS
from ingest_pipeline.core.drain import VERIFY_SECONDS
from ingest_pipeline.core.errors import EnvironmentFault
from ingest_pipeline.core.record import Batch, Message
from ingest_pipeline_tests.simulation.model import Key, Version
from ingest_pipeline_tests.simulation.state import StreamState

ENVIRONMENT = {fault.__name__ for fault in (EnvironmentFault, *EnvironmentFault.__subclasses__())}
SLACK_SECONDS = 0.3
"""A batch is stored within its time-out and this slack, whatever happens to other streams."""


class StreamWatch:
    """The part of a run that concerns one stream.

    Args:
        own_seconds: seconds that the run has slept.

    Attributes:
        stopped_by: the StopStream of the stream's last write. The run must not write the stream before it opens the
            stream again.
        refusals: every StopStream of a write in this run.
        saw: id of the topic that the run last compared with its positions.
        hand: (partition, offset) → (bytes, time of the read). Records that were read and not committed.
        began: when the ledger first got the batch that is being written.
        reading: whether the source reads the stream's topic.
    """

    def __init__(self, state: StreamState, shared: bool, own_seconds: Callable[[], float]) -> None:
        own, job = state.own, state.job
        self._state, self._shared, self._own_seconds = state, shared, own_seconds
        self._most_records = max(own.batch_size, 0 if job.run_max_batches else own.records_per_commit)
        self._most_in_hand = self._most_records * (2 if shared else 1)  # a shared read has room for the emptiest batch
        self.most_bytes = own.batch_bytes
        self._timeout = own.batch_timeout_seconds
        self.hand: dict[tuple[int, int], tuple[int, float]] = {}
        self.began: float | None = None
        self._verified_at, self._late = -math.inf, True
        self._started = self.reading = False
        self.stopped_by = ""
        self.refusals: set[str] = set()
        self.saw = ""

    # --- memory is bounded, and records wait no longer than the time-out --------------------------------------------

    @property
    def held_bytes(self) -> int:
        return sum(size for size, _ in self.hand.values())

    def reads(self) -> None:
        """The run is about to read, so no batch waits for the database, and no batch is full.

        The bytes in hand are bounded before a read. The result of a read is not, because the number of records that fit
        is an estimate, and the surplus is carried. `writes` checks the size of a batch.
        """
        assert self.began is None, "more is read though a batch is not written yet"
        held = self.held_bytes
        assert held < self.most_bytes, f"{held} bytes in hand, {self.most_bytes} are a batch, and more is read"
        late = self._now() > self._verified_at + VERIFY_SECONDS
        assert not (late and self._late), "two reads after the time to verify the topic"
        self._late = late
        if self.hand:
            waited = self._own_seconds() - min(read_at for _, read_at in self.hand.values())
            assert waited <= self._timeout + SLACK_SECONDS, f"{self._state.name}: a record waited {waited:.2f} s"

    def took(self, messages: Collection[Message]) -> None:
        read_at = self._own_seconds()
        self.hand |= {(message.partition(), message.offset()): (len(message), read_at) for message in messages}
        assert len(self.hand) <= self._most_in_hand, f"{len(self.hand)} records in hand, limit {self._most_in_hand}"

    def writes(self, batch: Batch) -> None:
        """The run is about to write the batch, for the first time or again."""
        sizes = [size for key, (size, _) in self.hand.items() if _within(batch, *key)]
        assert len(sizes) == batch.records <= self._most_records, (
            f"{batch.records} records in a batch, {len(sizes)} of them in hand, limit {self._most_records}"
        )
        assert sum(sizes) <= self.most_bytes or len(sizes) == 1, f"a batch of {sizes} bytes"
        if self.began is None:
            self.began = self._now()
        elif not self._shared:
            self.recovers()  # a busy table holds up a run with one stream

    def committed(self, batch: Batch) -> None:
        self.hand = {key: entry for key, entry in self.hand.items() if not _within(batch, *key)}
        self.began = None

    def refused(self, error: str) -> None:
        """A write raised a StopStream."""
        self.stopped_by = error
        self.refusals.add(error)

    def recovers(self) -> None:
        """The run waits for the database, so all its records wait."""
        now = self._own_seconds()
        self.hand = {key: (size, now) for key, (size, _) in self.hand.items()}

    # --- the topic of the records -----------------------------------------------------------------------------------

    def starts(self) -> None:
        """The run begins to read the topic. Before its first read, the run verifies the topic."""
        if not self._started:
            self._verified_at, self._late = -math.inf, True
        self._started = self.reading = True
        self.stopped_by = ""
        self._drop()

    def stops(self) -> None:
        """The run reads the topic no longer, and forgets its records."""
        self.reading = False
        self._drop()

    def _drop(self) -> None:
        self.hand, self.began = {}, None

    def asks(self) -> None:
        """The run verifies the topic, with or without an answer."""
        self._verified_at, self._late = self._now(), False
        self._state.count["topic looked at again"] += 1

    def compared(self) -> None:
        """The run got an answer, and compared it with its positions."""
        self._verified_at, self._late = self._now(), False
        self.saw = self._state.model.topic_id

    def stored(self, key: Key, version: Version, topic_id: str | None) -> None:
        """The run made a row or a dead letter of this record. `topic_id` is the topic of its position.

        A record is stored once, under whatever incarnation. Two exceptions:

        - An acceptance stores again what is left in the log.
        - A run may read a re-created topic before it can see the new id. It stores these records as the old topic's,
          and they are stored again after an acceptance. This limit is documented (core.drain.VERIFY_SECONDS).

        Not checked: a tombstone that is skipped twice, and which of several tombstones at an offset became a letter.
        """
        if version.topic_id != topic_id:
            assert self.saw != version.topic_id, f"{key} belongs to a topic that the run saw to be another one"
            self._state.count["stored as of the topic before"] += 1
            return
        assert version.stored in (None, key) or version.again == key[0], f"{key} was stored as {version.stored}"
        self._state.count["stored again, as was said"] += version.stored not in (None, key)
        version.stored = key

    def _now(self) -> float:
        return self._state.clock.monotonic()


class Watch:
    """A run as a whole, created when the run reads its settings.

    Attributes:
        streams: topic → its part of the run.
    """

    def __init__(self, streams: Sequence[StreamState], own_seconds: Callable[[], float]) -> None:
        self._shared = len(streams) > 1
        self._now = streams[0].clock.monotonic
        self._patience = streams[0].job.retry_seconds
        self.streams: Mapping[str, StreamWatch] = {
            state.stream.topic: StreamWatch(state, self._shared, own_seconds) for state in streams
        }

    def reads(self) -> None:
        """The run is about to read all its topics."""
        reading = [watch for watch in self.streams.values() if watch.reading]
        for watch in reading:
            watch.reads()
        held, most = sum(watch.held_bytes for watch in reading), 2 * max(w.most_bytes for w in self.streams.values())
        assert not self._shared or held <= most, f"{held} bytes in hand of all streams, limit {most}, and more is read"

    def recovers(self) -> None:
        for watch in self.streams.values():
            watch.recovers()

    def ended(self, failed: str, asked_to: str | None, failed_streams: Collection[str]) -> None:
        """`failed`: name of the error that ended the run, or "". `asked_to`: the reason of a request to end."""
        for name, watch in self.streams.items():
            named = failed in ENVIRONMENT or name in failed_streams if self._shared else failed == watch.stopped_by
            assert not watch.stopped_by or named, f"a write raised {watch.stopped_by}, the run ended with {failed!r}"
            if failed == "DatabaseUnavailable" and watch.began is not None and asked_to is None:
                borne = self._now() - watch.began
                assert borne >= self._patience - LONGEST_SECONDS, f"gave up after {borne} s of {self._patience}"


def _within(batch: Batch, partition: int, offset: int) -> bool:
    advance = batch.advances.get(partition)
    return advance is not None and offset < advance.resume_at.next_offset

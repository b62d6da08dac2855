"""The ledger outside a run, on a MemoryDatabase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ..core.ledger import Account, LedgerSnapshot, LetterCount, Owners, StreamState
from ..core.loss import Loss
from ..core.ports import Ledger
from ..core.record import NextOffset, StoredPosition, TopicIdentity
from ..core.stream import Stream
from .database import MemoryDatabase


class MemoryLedger(Ledger):
    """The ledger of one stream on a MemoryDatabase."""

    def __init__(self, database: MemoryDatabase, stream: Stream) -> None:
        self._database, self._stream = database, stream
        self._table = database.table(stream.name)

    def prepare(self) -> None:
        """Nothing is missing here."""

    def snapshot(self) -> LedgerSnapshot:
        """One statement after the other, as in PostgreSQL: others may come between."""
        known = self.positions()
        return LedgerSnapshot(known, self.state(), self.losses(), self.owners(known))

    def positions(self) -> dict[int, StoredPosition]:
        with self._database.using():
            return dict(self._table.positions)

    def begin(self, identity: TopicIdentity, places: Mapping[int, NextOffset], first: bool) -> bool:
        with self._database.using():
            known = self._table.positions
            if first and known:
                return False
            current = max((at.incarnation for at in known.values()), default=0)
            past = {partition: 0 for partition in places}
            for at in self._table.past:
                past[at.partition] = max(past.get(at.partition, 0), at.incarnation)
            used = [partition for partition in places if past[partition] >= current]
            self._table.incarnation += bool(used)
            for partition, place in places.items():
                incarnation = self._table.incarnation if partition in used else current
                begun = StoredPosition(
                    partition=partition,
                    incarnation=incarnation,
                    topic=self._stream.topic,
                    cluster_id=identity.cluster_id,
                    topic_id=identity.topic_id,
                    first_offset=place.next_offset,
                    next_offset=place.next_offset,
                    leader_epoch=place.leader_epoch,
                    rows=0,
                    dead_letters=0,
                    skipped=0,
                    absent=0,
                    lost=0,
                    updated_at=self._database.now(),
                    run_id=None,
                )
                known.setdefault(partition, begun)
            return True

    def adopt_identity(self, identity: TopicIdentity) -> None:
        with self._database.using():
            for partition, at in self._table.positions.items():
                self._table.positions[partition] = replace(
                    at, cluster_id=at.cluster_id or identity.cluster_id, topic_id=at.topic_id or identity.topic_id
                )

    def ledger_id(self) -> str:
        return self._database.ledger_id

    def losses(self) -> list[Loss]:
        with self._database.using():
            known = self._table.positions
            noted = [loss for _, loss in sorted(self._table.losses.items()) if loss.partition in known]
            return [
                loss
                for loss in noted
                if (loss.incarnation, loss.next_offset)
                == (known[loss.partition].incarnation, known[loss.partition].next_offset)
            ]

    def note_loss(self, loss: Loss) -> None:
        with self._database.using():
            before = self._table.losses.get(loss.partition)
            place = (loss.incarnation, loss.next_offset)
            if before is None or (before.incarnation, before.next_offset) != place:
                self._table.losses[loss.partition] = loss

    def forget_losses(self, partition: int | None = None) -> None:
        with self._database.using():
            for loss in self.losses():
                if partition in (None, loss.partition):
                    at = self._table.positions[loss.partition]
                    self._table.positions[loss.partition] = replace(at, leader_epoch=None)
            for noted in [p for p in self._table.losses if partition in (None, p)]:
                del self._table.losses[noted]

    def allow_letters(self, count: int) -> None:
        with self._database.using():
            self._table.state = replace(self._table.state, letters_allowed=count, acted_at=self._database.now())

    def accounting(self) -> list[Account]:
        with self._database.mutex:
            entries = [*self._table.positions.values(), *self._table.past]
            return [self._account(at) for at in sorted(entries, key=lambda at: (at.partition, at.incarnation))]

    def _account(self, at: StoredPosition) -> Account:
        place = (at.incarnation, at.partition)
        gaps = [
            stop - loss.next_offset for loss, stop in self._table.gaps if (loss.incarnation, loss.partition) == place
        ]
        return Account(
            at.partition,
            at.incarnation,
            at.first_offset,
            at.next_offset,
            at.rows,
            at.dead_letters,
            at.skipped,
            at.absent,
            at.lost,
            sum(coordinates[:2] == place for coordinates in self._table.dead_letters),
            sum(gaps),
        )

    def open_letters(self) -> list[LetterCount]:
        with self._database.using():
            counts = Counter(
                (partition, letter.stage, (letter.sqlstate or "")[:2])
                for (incarnation, partition, offset), letter in self._table.dead_letters.items()
                if (incarnation, partition, offset) not in self._table.settled
            )
            return [LetterCount(*key, letters) for key, letters in sorted(counts.items())]

    def await_topic(self) -> None:
        with self._database.using():
            self._table.awaited = True

    def was_awaited(self) -> bool:
        with self._database.using():
            return self._table.awaited

    def owners(self, partitions: Collection[int]) -> Owners:
        with self._database.using():
            present = {connection.run_id for connection in self._database.connections}
            return Owners(self._database.holders(self._stream.name, partitions), present)

    def state(self) -> StreamState:
        with self._database.using():
            return replace(self._table.state, now=self._database.now())

    def pause(self, reason: str, by: str) -> None:
        with self._database.using():
            now = self._database.now()
            self._table.state = replace(self._table.state, paused=True, reason=reason, paused_by=by, since=now)

    def resume(self) -> None:
        with self._database.using():
            if self._table.state.paused:
                now = self._database.now()
                self._table.state = replace(
                    self._table.state, paused=False, reason=None, paused_by=None, since=now, acted_at=now
                )

    def note_waiting(self, waiting: Mapping[int, Sequence[float]]) -> None:
        with self._database.using():
            kept = {str(partition): list(at) for partition, at in waiting.items()}
            self._table.state = replace(self._table.state, waiting=kept)

    def note_failure(self, why: str, stops: bool) -> None:
        with self._database.using():
            now = self._database.now()
            self._table.state = replace(self._table.state, failed_at=now, failure=why, failure_stops=stops)

    def note_tick(self) -> None:
        with self._database.using():
            self._table.state = replace(self._table.state, ticked_at=self._database.now())

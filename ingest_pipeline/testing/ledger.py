"""The ledger of a MemoryDatabase as everybody but the drainer sees it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from ..core.loss import Loss
from ..core.record import NextOffset, TopicIdentity
from ..core.start import StoredPosition
from ..core.stream import Stream
from .database import MemoryDatabase, MemoryHolder, MemoryState


@dataclass(frozen=True, slots=True)
class MemoryOwners:
    """Partition → who owns it, and the runs that have a session."""

    holders: Mapping[int, MemoryHolder]
    present: Collection[str]


@dataclass(frozen=True, slots=True)
class MemoryLedgerSnapshot:
    """All that a tick asks of a stream's ledger."""

    positions: dict[int, StoredPosition]
    state: MemoryState
    losses: list[Loss]
    owners: MemoryOwners


@dataclass(frozen=True, slots=True)
class MemoryAccount:
    """What the view accounting says of one partition's incarnation."""

    kafka_partition: int
    kafka_incarnation: int
    first_offset: int
    next_offset: int
    rows: int
    dead_letters: int
    skipped: int
    absent: int
    lost: int
    letters_kept: int
    gaps_kept: int

    @property
    def unaccounted(self) -> int:
        counted = self.rows + self.dead_letters + self.skipped + self.absent + self.lost
        return self.next_offset - self.first_offset - counted

    @property
    def accounted(self) -> bool:
        return (self.unaccounted, self.letters_kept, self.gaps_kept) == (0, self.dead_letters, self.lost)


class MemoryLedger:
    """Implements core.start.Ledger on a MemoryDatabase, and what else is asked of a stream from outside a run."""

    def __init__(self, database: MemoryDatabase, stream: Stream) -> None:
        self._database, self._stream = database, stream
        self._table = database.table(stream.name)

    def prepare(self) -> None:
        """Nothing is missing here."""

    def snapshot(self) -> MemoryLedgerSnapshot:
        """One statement after the other, as in PostgreSQL: others may come between."""
        known = self.positions()
        return MemoryLedgerSnapshot(known, self.state(), self.losses(), self.owners(known))

    def positions(self) -> dict[int, StoredPosition]:
        """See core.start.Ledger."""
        with self._database.using():
            return dict(self._table.positions)

    def begin(self, identity: TopicIdentity, places: Mapping[int, NextOffset], first: bool) -> bool:
        """See core.start.Ledger."""
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
        """See core.start.Ledger."""
        with self._database.using():
            for partition, at in self._table.positions.items():
                self._table.positions[partition] = replace(
                    at, cluster_id=at.cluster_id or identity.cluster_id, topic_id=at.topic_id or identity.topic_id
                )

    def ledger_id(self) -> str:
        """See core.start.Ledger."""
        return self._database.ledger_id

    def losses(self) -> list[Loss]:
        """See core.start.Ledger."""
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
        """See core.start.Ledger."""
        with self._database.using():
            before = self._table.losses.get(loss.partition)
            place = (loss.incarnation, loss.next_offset)
            if before is None or (before.incarnation, before.next_offset) != place:
                self._table.losses[loss.partition] = loss

    def forget_losses(self, partition: int | None = None) -> None:
        """What was found was a mistake: Kafka holds the next offsets after all, those of one partition or of all."""
        with self._database.using():
            for loss in self.losses():
                if partition in (None, loss.partition):
                    at = self._table.positions[loss.partition]
                    self._table.positions[loss.partition] = replace(at, leader_epoch=None)
            for noted in [p for p in self._table.losses if partition in (None, p)]:
                del self._table.losses[noted]

    def allow_letters(self, count: int) -> None:
        """Let so many dead letters pass uncounted by the limit."""
        with self._database.using():
            self._table.letters_allowed = count
            self._table.state = replace(self._table.state, acted_at=self._database.now())

    def accounting(self) -> list[MemoryAccount]:
        """Counters, dead letters and gaps side by side, of present and past positions."""
        with self._database.mutex:
            entries = [*self._table.positions.values(), *self._table.past]
            return [self._account(at) for at in sorted(entries, key=lambda at: (at.partition, at.incarnation))]

    def _account(self, at: StoredPosition) -> MemoryAccount:
        place = (at.incarnation, at.partition)
        gaps = [
            stop - loss.next_offset for loss, stop in self._table.gaps if (loss.incarnation, loss.partition) == place
        ]
        return MemoryAccount(
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

    def await_topic(self) -> None:
        """Remember that the topic did not exist: when it appears it begins at its beginning."""
        with self._database.using():
            self._table.awaited = True

    def was_awaited(self) -> bool:
        """See core.start.Ledger."""
        with self._database.using():
            return self._table.awaited

    def owners(self, partitions: Collection[int]) -> MemoryOwners:
        """Who owns these partitions and which runs have a session."""
        with self._database.using():
            present = {connection.run_id for connection in self._database.connections}
            return MemoryOwners(self._database.holders(self._stream.name, partitions), present)

    def state(self) -> MemoryState:
        """Paused or not."""
        with self._database.using():
            return replace(self._table.state, now=self._database.now())

    def pause(self, reason: str, by: str) -> None:
        """The stream stops within a batch, wherever it runs, and stays so until `resume`."""
        with self._database.using():
            now = self._database.now()
            self._table.state = replace(self._table.state, paused=True, reason=reason, paused_by=by, since=now)

    def resume(self) -> None:
        """Lift the pause."""
        with self._database.using():
            if self._table.state.paused:
                now = self._database.now()
                self._table.state = replace(
                    self._table.state, paused=False, reason=None, paused_by=None, since=now, acted_at=now
                )

    def note_waiting(self, waiting: Mapping[int, Sequence[float]]) -> None:
        """The sensor sees records wait."""
        with self._database.using():
            kept = {str(partition): list(at) for partition, at in waiting.items()}
            self._table.state = replace(self._table.state, waiting=kept)

    def note_failure(self, why: str, stops: bool) -> None:
        """A run has failed just now."""
        with self._database.using():
            now = self._database.now()
            self._table.state = replace(self._table.state, failed_at=now, failure=why, failure_stops=stops)

    def note_tick(self) -> None:
        """The stream's sensor has looked just now."""
        with self._database.using():
            self._table.state = replace(self._table.state, ticked_at=self._database.now())

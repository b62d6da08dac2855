"""The ledger outside a run, on a MemoryDatabase."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..core.errors import IngestError
from ..core.ledger import Account, LedgerSnapshot, LetterCount, LetterStatus, Owners, StreamState
from ..core.ledger_ports import Ledger, Ledgers
from ..core.loss import Loss
from ..core.record import NextOffset, StoredPosition, TopicIdentity
from ..core.stream import Stream
from .database import MemoryDatabase


class MemoryLedgers(Ledgers):
    def __init__(self, database: MemoryDatabase, streams: Sequence[Stream]) -> None:
        self._database = database
        self._ledgers = {stream.name: MemoryLedger(database, stream) for stream in streams}

    def prepare(self) -> None:
        """Do nothing, see MemoryLedger."""

    def snapshots(self) -> dict[str, LedgerSnapshot | IngestError]:
        return {name: ledger.snapshot() for name, ledger in self._ledgers.items()}

    def accounting(self) -> dict[str, list[Account]]:
        return {name: ledger.accounting() for name, ledger in self._ledgers.items()}

    def open_letters(self) -> dict[str, list[LetterCount]]:
        return {name: ledger.open_letters() for name, ledger in self._ledgers.items()}

    def note_ticks(self, streams: Collection[str]) -> None:
        for name in streams:
            self._database.change_state(name, ticked_at=self._database.now())

    def note_waiting(self, waiting: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
        for name, of in waiting.items():
            as_json = {str(partition): list(values) for partition, values in of.items()}
            self._database.change_state(name, waiting=as_json)


class MemoryLedger(Ledger):
    def __init__(self, database: MemoryDatabase, stream: Stream) -> None:
        self._database, self._stream = database, stream
        self._table = database.table(stream.name)

    def prepare(self) -> None:
        """Do nothing: a MemoryDatabase has its tables from the start."""

    def snapshot(self) -> LedgerSnapshot:
        """Read the parts in separate statements, as PostgresLedger does, so another session may write in between."""
        positions = self.positions()
        return LedgerSnapshot(positions, self.state(), self.losses(), self.owners(positions))

    def positions(self) -> dict[int, StoredPosition]:
        with self._database.using():
            return dict(self._table.positions)

    def begin(
        self, identity: TopicIdentity, starts: Mapping[int, NextOffset], first: bool
    ) -> dict[int, StoredPosition]:
        with self._database.using():
            positions = self._table.positions
            if first and positions:
                return dict(positions)
            current = max((position.incarnation for position in positions.values()), default=0)
            past = {partition: 0 for partition in starts}
            for closed in self._table.past:
                past[closed.partition] = max(past.get(closed.partition, 0), closed.incarnation)
            used = [partition for partition in starts if past[partition] >= current]
            self._table.incarnation += bool(used)
            for partition, offset in starts.items():
                incarnation = self._table.incarnation if partition in used else current
                begun = StoredPosition(
                    partition=partition,
                    incarnation=incarnation,
                    topic=self._stream.topic,
                    cluster_id=identity.cluster_id,
                    topic_id=identity.topic_id,
                    first_offset=offset.next_offset,
                    next_offset=offset.next_offset,
                    leader_epoch=offset.leader_epoch,
                    rows=0,
                    dead_letters=0,
                    skipped=0,
                    absent=0,
                    lost=0,
                    updated_at=self._database.now(),
                    run_id=None,
                )
                positions.setdefault(partition, begun)
            return dict(positions)

    def adopt_identity(self, identity: TopicIdentity) -> None:
        with self._database.using():
            for partition, position in self._table.positions.items():
                self._table.positions[partition] = replace(
                    position,
                    cluster_id=position.cluster_id or identity.cluster_id,
                    topic_id=position.topic_id or identity.topic_id,
                )

    def ledger_id(self) -> str:
        return self._database.ledger_id

    def losses(self) -> list[Loss]:
        with self._database.using():
            positions = self._table.positions
            noted = [loss for _, loss in sorted(self._table.losses.items()) if loss.partition in positions]
            return [
                loss
                for loss in noted
                if (loss.incarnation, loss.next_offset)
                == (positions[loss.partition].incarnation, positions[loss.partition].next_offset)
            ]

    def note_loss(self, loss: Loss) -> None:
        with self._database.using():
            before = self._table.losses.get(loss.partition)
            key = (loss.incarnation, loss.next_offset)
            if before is None or (before.incarnation, before.next_offset) != key:
                self._table.losses[loss.partition] = loss

    def forget_losses(self, partition: int | None = None) -> None:
        with self._database.using():
            for loss in self.losses():
                if partition in (None, loss.partition):
                    position = self._table.positions[loss.partition]
                    self._table.positions[loss.partition] = replace(position, leader_epoch=None)
            for noted in [p for p in self._table.losses if partition in (None, p)]:
                del self._table.losses[noted]

    def allow_letters(self, count: int) -> None:
        self._change(letters_allowed=count, acted_at=self._database.now())

    def acknowledge_letters(self) -> None:
        self._change(acknowledged_at=self._database.now())

    def accounting(self) -> list[Account]:
        with self._database.mutex:
            entries = [*self._table.positions.values(), *self._table.past]
            entries.sort(key=lambda entry: (entry.partition, entry.incarnation))
            return [self._account(entry) for entry in entries]

    def _account(self, entry: StoredPosition) -> Account:
        key = (entry.incarnation, entry.partition)
        gaps = [stop - loss.next_offset for loss, stop in self._table.gaps if (loss.incarnation, loss.partition) == key]
        return Account(
            partition=entry.partition,
            incarnation=entry.incarnation,
            first_offset=entry.first_offset,
            next_offset=entry.next_offset,
            rows=entry.rows,
            dead_letters=entry.dead_letters,
            skipped=entry.skipped,
            absent=entry.absent,
            lost=entry.lost,
            letters_kept=sum(coordinates[:2] == key for coordinates in self._table.dead_letters),
            gaps_kept=sum(gaps),
        )

    def row_count(self) -> int:
        with self._database.using():
            entries = [*self._table.positions.values(), *self._table.past]
            redriven = sum(status == LetterStatus.REDRIVEN for status in self._table.settled.values())
            return sum(entry.rows for entry in entries) + redriven

    def open_letters(self) -> list[LetterCount]:
        with self._database.using():
            counts = Counter(
                (partition, letter.stage, (letter.sqlstate or "")[:2])
                for (incarnation, partition, offset), letter in self._table.dead_letters.items()
                if (incarnation, partition, offset) not in self._table.settled
            )
            return [LetterCount(*key, letters) for key, letters in sorted(counts.items())]

    def await_topic(self) -> None:
        self._change(awaited=True)

    def owners(self, partitions: Collection[int]) -> Owners:
        with self._database.using():
            present = {backend.run_id for backend in self._database.backends}
            return Owners(self._database.holders(self._stream.name, partitions), present)

    def state(self) -> StreamState:
        with self._database.using():
            return replace(self._table.state, now=self._database.now())

    def pause(self, reason: str, by: str) -> None:
        self._change(paused=True, reason=reason, paused_by=by, since=self._database.now())

    def resume(self) -> None:
        with self._database.using():
            if self._table.state.paused:
                now = self._database.now()
                self._change(paused=False, reason=None, paused_by=None, since=now, acted_at=now)

    def note_failure(self, why: str, stops: bool) -> None:
        self._change(failed_at=self._database.now(), failure=why, failure_stops=stops)

    def _change(self, **changes: Any) -> None:
        self._database.change_state(self._stream.name, **changes)

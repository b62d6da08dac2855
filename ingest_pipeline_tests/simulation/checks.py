"""The invariants of one stream, each checked at the moment when it could break."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from ingest_pipeline.core.ledger import Replayed
from ingest_pipeline.core.loss import Acceptance
from ingest_pipeline.core.record import Batch, CommitResult, NextOffset, StoredPosition
from ingest_pipeline.testing.database import MemoryTable
from ingest_pipeline_tests.simulation.jobs import current, watched
from ingest_pipeline_tests.simulation.model import ABSENT, GAP, TOMBSTONE, Key, Version
from ingest_pipeline_tests.simulation.state import StreamState
from ingest_pipeline_tests.simulation.watch import StreamWatch

ROW, LETTER, SKIPPED = "row", "letter", "skipped"


class Checks:
    """Compares a stream's tables with its model.

    Attributes:
        outcome: the outcome of every offset below its incarnation's position.
        of: the record behind each outcome.
        rows, letters: the expected tables. The status of a letter is "open" or how it was settled.
        owner: partition → the run that took it last.
        allowance: letters that an operator lets pass.
        moved_at: partition → when its position last moved.
    """

    def __init__(self, state: StreamState, table: MemoryTable) -> None:
        self._state, self._table = state, table
        self.outcome: dict[Key, str] = {}
        self.of: dict[Key, Version] = {}
        self.rows: dict[Key, str] = {}
        self.letters: dict[Key, str] = {}
        self.owner: dict[int, str] = {}
        self.seen: dict[int, StoredPosition] = {}
        self.begun: dict[int, tuple[int, int]] = {}
        self.allowance = 0
        self.moved_at: dict[int, float] = {}

    def begun_now(self) -> None:
        """Positions of new partitions."""
        for partition, position in self._table.positions.items():
            if partition not in self.seen:
                assert not any(_counts(position)) and position.next_offset == position.first_offset
                self.seen[partition] = position
                self.begun[partition] = self._state.model.reading(), position.next_offset

    def taken(self, run_id: str, partitions: Collection[int]) -> None:
        for partition in partitions:
            self.owner[partition] = run_id

    def acknowledged(self, places: Mapping[int, NextOffset]) -> None:
        """Group offsets never run ahead of the ledger, within an incarnation."""
        for partition, place in places.items():
            position = self._table.positions.get(partition)
            ahead = position is not None and place.next_offset > position.next_offset
            assert not ahead or any(past.partition == partition for past in self._table.past), "acknowledged ahead"

    def written(self, run_id: str, batch: Batch, streak: int) -> int:
        """A run's write is over, committed or not. The refusals in a row up to now."""
        table = self._table
        moved = [
            p
            for p, position in table.positions.items()
            if p in self.seen and position.next_offset != self.seen[p].next_offset
        ]
        if not moved:
            self.unchanged()
            return streak
        watch = self._watch()
        assert not watch.stopped_by, "a write that was refused, or a later one, is committed"
        assert set(moved) == set(batch.advances), "positions move by the whole batch"
        for partition in moved:
            assert self.owner[partition] == run_id, f"{run_id} was fenced and wrote partition {partition}"
            self._account(partition, self.seen[partition], table.positions[partition])
            self.moved_at[partition] = self._state.clock.time()
        self._state.count["batches"] += 1
        streak = self._refusals(batch, streak)
        self.unchanged()
        return streak

    def settled(self, batch: Batch, written: CommitResult | None) -> None:
        """A COMMIT whose answer was lost is told for what it was."""
        positions = self._table.positions
        committed = all(
            positions[partition].next_offset == advance.resume_at.next_offset
            for partition, advance in batch.advances.items()
        )
        assert committed == (written is not None), "in doubt, and guessed wrong"
        if written is not None:
            coordinates = {row[:3] for row in batch.rows}
            assert sum(written.rows.values()) == len(coordinates - self.letters.keys())

    def accepted(self, accepted: Sequence[Acceptance], before: Mapping[int, StoredPosition]) -> None:
        """An operator, or ON_DATA_LOSS=continue, moved positions over gaps."""
        for item in accepted:
            partition = item.loss.partition
            old, new = before[partition], self._table.positions.get(partition)
            assert self.real_loss(old), f"accepted what was none: {item.loss.description}"
            self._state.count[f"losses accepted: {item.loss.cause}"] += 1
            if new is None:
                del self.seen[partition]
                continue
            same = new.incarnation == old.incarnation
            assert same or new.incarnation > max(position.incarnation for position in before.values())
            first = old.next_offset if same else 0
            job = current()
            if new.topic_id == self._state.model.topic_id:  # of one that is gone already nothing more is passed over
                self._give_up(partition, first, new.next_offset, job is not None and job.waives)
            for offset in range(old.next_offset, new.next_offset) if same else ():
                self._settle((new.incarnation, partition, offset), GAP, self._state.model.latest(partition, offset))
            if not same:
                assert new.lost == new.next_offset - new.first_offset
                self.begun[partition] = self._state.model.reading(), new.next_offset
                if not item.loss.cause.is_another_topic:
                    self._state.model.store_again(partition, new.first_offset, new.incarnation)
            self.seen[partition] = new
        self.unchanged()

    def _give_up(self, partition: int, start: int, stop: int, waived: bool) -> None:
        """Going on behind records that Kafka still holds and that were never read is for the operator to say."""
        for offset, version in self._state.model.alive(partition, start, stop):
            assert version.settled or waived, f"partition {partition} offset {offset} is passed over unread"
            version.settled = True

    def replayed(self, batch: Batch, replayed: Replayed) -> None:
        """Rows that a replay added were missing, and are of the records that their coordinates mean."""
        table, model, job = self._table, self._state.model, current()
        assert job is not None
        added = table.rows.keys() - self.rows.keys()
        assert replayed.stored == len(added)
        ((partition, advance),) = batch.advances.items()
        for key in added:
            assert (
                key[:2] == (advance.incarnation, partition)
                and advance.expected <= key[2] < advance.resume_at.next_offset
            )
            device = table.rows[key][4]
            (found,) = [v for v in model.history[partition][key[2]] if v.device == device] or [None]
            assert found is not None and model.becomes_row(found, job.mended), "a replay made up a row"
            if key in self.of and self.outcome[key] != GAP:
                assert self.of[key] is found, f"{key} was {self.of[key].kind} {self.of[key].device}, replayed {device}"
            # one that was held up may find that an acceptance has said meanwhile that it is all stored again
            assert found.stored in (None, key) or found.again, f"{key} was stored as {found.stored}"
            found.stored = found.stored or key
            found.settled = True
            self.rows[key] = device
        self._state.count["rows replayed"] += len(added)
        self.unchanged()

    def unchanged(self) -> None:
        """The tables hold what they have to, and nothing else."""
        table = self._table
        assert {key: row[4] for key, row in table.rows.items()} == self.rows
        assert {key: table.settled.get(key, "open") for key in table.dead_letters} == self.letters
        assert not {key for key, status in self.letters.items() if status == "open"} & self.rows.keys(), (
            "row and letter"
        )
        assert table.positions == {p: position for p, position in self.seen.items()} or self._only_owners_differ()

    def _only_owners_differ(self) -> bool:
        def plain(positions: Mapping[int, StoredPosition]) -> dict[int, tuple[object, ...]]:
            return {
                p: (position.incarnation, position.first_offset, *_counts(position), position.next_offset)
                for p, position in positions.items()
            }

        return plain(self._table.positions) == plain(self.seen)

    def real_loss(self, position: StoredPosition) -> bool:
        """Whether Kafka no longer is what this position was reached by."""
        model, partition = self._state.model, position.partition
        if (
            position.topic_id != model.topic_id
            or not model.starts[partition] <= position.next_offset <= model.ends[partition]
        ):
            return True
        since, place = self.begun[partition]
        cut = (event > since and end < place for event, end in model.cuts[partition])
        of = (
            self.of.get((position.incarnation, partition, o))
            for o in range(position.first_offset, position.next_offset)
        )
        return any(cut) or any(version is not None and version.cut for version in of)

    def _account(self, partition: int, old: StoredPosition, new: StoredPosition) -> None:
        """Every offset that the position has passed has exactly one outcome, and counters say so."""
        assert new.incarnation == old.incarnation and new.next_offset > old.next_offset, "a position went back"
        assert new.next_offset - new.first_offset == sum(_counts(new))
        job, table, watch = current(), self._table, self._watch()
        assert job is not None
        found: Counter[str] = Counter()
        unsure = False  # a tombstone that was compacted between read and commit is skipped or absent
        for offset in range(old.next_offset, new.next_offset):
            key = (new.incarnation, partition, offset)
            row, letter = table.rows.get(key), table.dead_letters.get(key)
            assert row is None or letter is None
            possible = self._state.model.possible(partition, offset, job.since[self._state.stream.topic])
            outcomes = [(self._outcome_of(version, job.mended), version) for version in possible]
            if row is not None:
                fits = [(ROW, v) for outcome, v in outcomes if outcome == ROW and v.device == row[4]]
                self.rows[key] = row[4]
            elif letter is not None:
                fits = [(LETTER, v) for outcome, v in outcomes if outcome == LETTER and v.value == letter.value]
                self.letters[key] = "open"
            else:
                fits = [(outcome, v) for outcome, v in outcomes if outcome in (SKIPPED, ABSENT)]
            assert fits, f"{key}: row {row}, letter {letter and letter.reason}, but it was {outcomes}"
            outcome, version = fits[0]
            unsure = unsure or {SKIPPED, ABSENT} <= {each for each, _ in fits}
            found[outcome] += 1
            self._settle(key, outcome, version)
            if outcome in (ROW, LETTER):
                watch.stored(key, version, new.topic_id)
        moved = Counter(dict(zip(_NAMES, _counts(new), strict=True)))
        moved.subtract(dict(zip(_NAMES, _counts(old), strict=True)))
        if unsure:
            found[ABSENT], moved[ABSENT] = found[ABSENT] + found.pop(SKIPPED, 0), moved[ABSENT] + moved.pop(SKIPPED)
        assert +moved == +found, f"{moved} counted, {found} found"
        self.seen[partition] = new

    def _watch(self) -> StreamWatch:
        """The watch on this stream in the run that calls."""
        watch = watched()
        assert watch is not None
        return watch.streams[self._state.stream.topic]

    def _settle(self, key: Key, outcome: str, version: Version | None) -> None:
        assert key not in self.outcome, f"{key} again"
        self.outcome[key] = outcome
        if version is not None:
            self.of[key] = version
            version.settled = version.settled or outcome != GAP

    def _outcome_of(self, version: Version, decoder_mended: bool) -> str:
        if version.kind == ABSENT:
            return ABSENT
        if version.kind == TOMBSTONE:
            return LETTER if self._state.tombstones_refused else SKIPPED
        return ROW if self._state.model.becomes_row(version, decoder_mended) else LETTER

    def _refusals(self, batch: Batch, streak: int) -> int:
        """In the order of the records: no more in a row than the limit, allowed ones apart."""
        letters = self._table.dead_letters.keys()
        order = [(letter.incarnation, letter.partition, letter.offset) for letter in batch.dead_letters]
        told = 0
        for index in range(len(batch.rows) + 1):
            while told < len(order) and batch.rows_before[told] <= index:
                streak = self._refused(streak)
                told += 1
            if index < len(batch.rows):
                streak = self._refused(streak) if batch.rows[index][:3] in letters else 0
        return streak

    def _refused(self, streak: int) -> int:
        if self.allowance:
            self.allowance -= 1
            return 0
        limit = self._state.letter_limit
        assert limit is None or streak < limit, f"{streak + 1} refusals in a row were committed"
        return streak + 1


_NAMES = (ROW, LETTER, SKIPPED, ABSENT, GAP)


def _counts(position: StoredPosition) -> tuple[int, int, int, int, int]:
    return position.rows, position.dead_letters, position.skipped, position.absent, position.lost

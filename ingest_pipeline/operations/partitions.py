"""Every partition's figures, from the answers of a stream's snapshot."""

from collections.abc import Sequence

from ..core.ledger import LedgerSnapshot, LetterCount
from ..core.start import Survey
from . import lateness
from .partition_status import OpenLetters, PartitionStatus
from .snapshot import StreamSnapshot, answered

_COUNTERS = ("rows", "dead_letters", "skipped", "absent", "lost")


def partitions_of(snapshot: StreamSnapshot, ledger: LedgerSnapshot) -> list[PartitionStatus]:
    """Every partition of the topic and of the ledger."""
    topic, accounting = snapshot.topic, answered(snapshot.accounting)
    letters, rates = answered(snapshot.open_letters), answered(snapshot.rows_per_second)
    ends = {p: end.next_offset for p, end in topic.ends.items()} if isinstance(topic, Survey) else {}
    unanswered = topic.unanswered if isinstance(topic, Survey) else []
    count = max([0, *(partition + 1 for partition in (*ends, *unanswered, *ledger.positions))])
    next_offsets = {partition: position.next_offset for partition, position in ledger.positions.items()}
    losses = topic.losses if isinstance(topic, Survey) else ledger.losses
    of_other_logs = {loss.partition for loss in losses if loss.cause.reuses_offsets}
    lag = {
        p: max(0, ends[p] - next_offsets.get(p, 0)) if p in ends and p not in of_other_logs else None
        for p in range(count)
    }
    delays = lateness.delays(ledger.positions, lag, ledger.state, snapshot.poll_seconds)
    unaccounted = {row.partition for row in accounting or () if not row.accounted}
    newest_at = snapshot.newest_at
    statuses = []
    for partition in range(count):
        position, owner = ledger.positions.get(partition), ledger.owners.holders.get(partition)
        moved = position is not None and position.next_offset > position.first_offset
        statuses.append(
            PartitionStatus(
                partition,
                next_offsets.get(partition),
                ends.get(partition),
                lag[partition],
                **({} if position is None else {name: getattr(position, name) for name in _COUNTERS}),
                refused=None if letters is None else _refused(letters, partition),
                accounted=None if accounting is None else partition not in unaccounted,
                owner=owner.run_id if owner else None,
                owner_since=owner.since if owner else None,
                committed_at=position.updated_at if position and moved else None,
                newest_at=newest_at.get(partition),
                rows_per_second=None if rates is None or position is None else rates.get(partition, 0.0),
                delay=delays[partition],
            )
        )
    return statuses


def _refused(letters: Sequence[LetterCount], partition: int) -> tuple[OpenLetters, ...]:
    rows = [row for row in letters if row.partition == partition]
    return tuple(OpenLetters(row.stage, row.sqlstate_class, row.letters) for row in rows)

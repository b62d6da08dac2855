"""Finds a ledger that went back behind the offsets it had committed for its own group."""

from collections.abc import Mapping

from .adoption import listed
from .record import StoredPosition


def behind_group(group: str, positions: Mapping[int, StoredPosition], commits: Mapping[int, int]) -> str | None:
    """The sentence about positions behind the group, or None. A group follows its ledger, so its offset is ahead only
    after the database lost commits.

    A position at the beginning of its incarnation is left out: the group stays ahead after an accepted truncation.

    Args:
        commits: partition → the group's offset with the ledger's mark, read before the positions.
    """
    behind = {
        partition: position.next_offset
        for partition, position in sorted(positions.items())
        if position.first_offset < position.next_offset < commits.get(partition, 0)
    }
    if not behind:
        return None
    offsets = sum(commits[partition] - next_offset for partition, next_offset in behind.items())
    partitions = listed(f"partition {p} at {behind[p]} of {commits[p]}" for p in behind)
    return (
        f"the ledger is {offsets:,} offsets behind its own group {group}: {partitions}. The database was restored or"
        " failed over to an earlier state. The records in between are read again. The database's other tables may be"
        " of the earlier time too"
    )

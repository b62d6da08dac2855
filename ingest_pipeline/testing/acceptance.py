"""Going on after a loss, on a MemoryDatabase."""

from __future__ import annotations

from dataclasses import replace

from ..core.loss import Acceptance
from ..core.record import TopicIdentity
from .database import MemoryTable


def accept_one(item: Acceptance, table: MemoryTable, topic: str, identity: TopicIdentity) -> None:
    """Record one partition's gap and move its position over it. The caller has compared the position."""
    partition, place = item.loss.partition, item.resume_at
    at = table.positions[partition]
    table.losses.pop(partition, None)
    table.gaps.append((item.loss, at.next_offset if item.new_incarnation or place is None else place.next_offset))
    if item.left_out and place is not None:
        anew = replace(item.loss, incarnation=table.incarnation, next_offset=place.next_offset - item.left_out)
        table.gaps.append((anew, place.next_offset))
    if item.new_incarnation:
        table.past.append(at)
    if place is None:
        del table.positions[partition]
        return
    moved = replace(at, next_offset=place.next_offset, leader_epoch=place.leader_epoch)
    if not item.new_incarnation:
        table.positions[partition] = replace(moved, lost=at.lost + place.next_offset - at.next_offset)
        return
    table.positions[partition] = replace(
        moved,
        incarnation=table.incarnation,
        topic=topic,
        cluster_id=identity.cluster_id,
        topic_id=identity.topic_id,
        first_offset=place.next_offset - item.left_out,
        rows=0,
        dead_letters=0,
        skipped=0,
        absent=0,
        lost=item.left_out,
    )

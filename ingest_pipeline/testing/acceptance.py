"""Accepting a data loss on a MemoryDatabase."""

from dataclasses import replace

from ..core.loss import Acceptance
from ..core.record import TopicIdentity
from .database import MemoryTable


def accept_one(item: Acceptance, table: MemoryTable, topic: str, identity: TopicIdentity) -> None:
    """Record the gap of a partition and move its position past the gap. The caller has compared the position before."""
    partition, resume_at = item.loss.partition, item.resume_at
    stored = table.positions[partition]
    table.losses.pop(partition, None)
    table.gaps.append(
        (item.loss, stored.next_offset if item.new_incarnation or resume_at is None else resume_at.next_offset)
    )
    if item.left_out and resume_at is not None:
        skipped_loss = replace(
            item.loss, incarnation=table.incarnation, next_offset=resume_at.next_offset - item.left_out
        )
        table.gaps.append((skipped_loss, resume_at.next_offset))
    if item.new_incarnation:
        table.past.append(stored)
    if resume_at is None:
        del table.positions[partition]
        return
    advanced = replace(stored, next_offset=resume_at.next_offset, leader_epoch=resume_at.leader_epoch)
    if not item.new_incarnation:
        table.positions[partition] = replace(advanced, lost=stored.lost + resume_at.next_offset - stored.next_offset)
        return
    table.positions[partition] = replace(
        advanced,
        incarnation=table.incarnation,
        topic=topic,
        cluster_id=identity.cluster_id,
        topic_id=identity.topic_id,
        first_offset=resume_at.next_offset - item.left_out,
        rows=0,
        dead_letters=0,
        skipped=0,
        absent=0,
        lost=item.left_out,
    )

"""Losses, holes that are no losses, where reading resumes, and what an operator may accept."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ingest_pipeline.core.errors import DataLoss, KafkaUnavailable, TopicChanged
from ingest_pipeline.core.find_losses import find_losses, identity_losses
from ingest_pipeline.core.loss import Acceptance, Loss, LossCause, as_error, noted_loss, unverified
from ingest_pipeline.core.record import NextOffset, StoredPosition, TopicIdentity
from ingest_pipeline.operations.losses import acceptances
from ingest_pipeline.testing import MemoryBroker, MemoryTopic
from ingest_pipeline_tests.samples import stored_position

SAME = TopicIdentity("cluster", "topic", 2)


def position(next_offset: int, **changes: str | None) -> StoredPosition:
    ids = {"topic": "t", "cluster_id": "cluster", "topic_id": "topic"} | changes
    return stored_position(partition=0, next_offset=next_offset, updated_at=datetime.now(UTC), **ids)


def losses_of(
    stored: StoredPosition, low: int, high: int, identity: TopicIdentity = SAME, noted: list[Loss] | None = None
) -> list[tuple[str, int]]:
    losses = find_losses(
        identity, "t", {0: stored}, noted=noted or [], starts={0: NextOffset(low)}, highs={0: NextOffset(high)}
    )
    return [(loss.cause, loss.next_offset) for loss in losses]


@pytest.mark.parametrize(("low", "high"), [(0, 10), (10, 10), (10, 20), (0, 20)])
def test_a_next_offset_inside_the_log_or_at_its_bounds_is_no_loss(low: int, high: int) -> None:
    assert losses_of(position(10), low, high) == []


@pytest.mark.parametrize(
    ("stored", "low", "high", "identity", "cause"),
    [
        (position(10), 11, 20, SAME, "retention"),
        (position(10), 0, 9, SAME, "truncated"),
        (position(10, cluster_id="old"), 0, 20, SAME, "other cluster"),
        (position(10, topic_id="old"), 0, 20, SAME, "other topic"),
        (position(10, topic="old"), 0, 20, SAME, "renamed"),
        (position(10, topic="old", topic_id="old"), 0, 20, SAME, "renamed"),
        (position(10, topic_id=None), 0, 20, TopicIdentity("cluster", "topic", 0), "fewer partitions"),
        (position(10, topic_id="old"), 0, 20, TopicIdentity("cluster", "topic", 0), "other topic"),
        (position(10, topic_id="old"), 11, 20, SAME, "other topic"),
    ],
)
def test_a_loss_names_its_cause(
    stored: StoredPosition, low: int, high: int, identity: TopicIdentity, cause: str
) -> None:
    assert losses_of(stored, low, high, identity) == [(cause, 10)]


def test_an_id_that_either_side_lacks_is_not_compared() -> None:
    assert losses_of(position(10, topic_id=None, cluster_id=None), 0, 20) == []
    assert losses_of(position(10), 0, 20, TopicIdentity(None, None, 2)) == []


def test_fewer_partitions_under_the_same_topic_id_are_stale_metadata() -> None:
    with pytest.raises(KafkaUnavailable, match="position for partition 0 under the same topic id"):
        losses_of(position(10), 0, 20, TopicIdentity("cluster", "topic", 0))
    with pytest.raises(KafkaUnavailable):
        identity_losses(TopicIdentity("cluster", "topic", 2), "t", {p: position(10) for p in range(3)})


@pytest.mark.parametrize(
    ("stored_epoch", "answered_epoch", "causes"), [(5, 4, []), (5, 5, ["truncated"]), (5, 6, ["truncated"])]
)
def test_the_bounds_of_a_replaced_leader_are_not_compared(
    stored_epoch: int, answered_epoch: int, causes: list[str]
) -> None:
    stored = replace(position(10), leader_epoch=stored_epoch)
    losses = find_losses(
        SAME, "t", {0: stored}, noted=[], starts={0: NextOffset(0)}, highs={0: NextOffset(7, answered_epoch)}
    )
    assert [loss.cause for loss in losses] == causes


def test_a_noted_loss_stays_after_the_log_has_regrown() -> None:
    noted = noted_loss(cause="truncated", partition=0, incarnation=1, expected=10, low=0, high=4)
    assert losses_of(position(10), 0, 50, noted=[noted]) == [("truncated", 10)]


def test_reused_offsets_begin_a_new_incarnation() -> None:
    retention = noted_loss(cause="retention", partition=0, incarnation=1, expected=10, low=11, high=20)
    rewritten = noted_loss(cause="rewritten", partition=0, incarnation=1, expected=15, low=11, high=20)
    assert not Acceptance(retention, NextOffset(11)).new_incarnation
    assert Acceptance(retention, NextOffset(5)).new_incarnation, "rows below the position would be stored again"
    assert Acceptance(rewritten, NextOffset(11)).new_incarnation


def test_the_incarnation_stays_behind_a_corrupt_batch() -> None:
    unreadable = noted_loss(cause="unreadable", partition=0, incarnation=1, expected=10, low=0, high=20)
    assert not Acceptance(unreadable, NextOffset(15)).new_incarnation
    assert Acceptance(unreadable, NextOffset(5)).new_incarnation, "rows below the position would be stored again"
    assert unreadable.description.startswith("partition 0: the record batch at offset 10 is corrupt")


def test_offsets_left_out_of_a_new_log_count_as_lost() -> None:
    rewritten = noted_loss(cause="rewritten", partition=0, incarnation=1, expected=15, low=11, high=20)
    assert Acceptance(rewritten, NextOffset(11), low=11).left_out == 0
    assert Acceptance(rewritten, NextOffset(20), low=11).left_out == 9
    assert (
        Acceptance(
            noted_loss(cause="retention", partition=0, incarnation=1, expected=10, low=11, high=20),
            NextOffset(15),
            low=11,
        ).left_out
        == 0
    ), "it is in the gap"
    assert Acceptance(rewritten, None).left_out == 0


def test_unverified_names_records_stored_since_the_old_topic_was_seen() -> None:
    assert unverified({0: 5, 1: 7}, {0: 5, 1: 7}) == unverified({}, {0: 5}) == ""
    sentence = unverified({0: 5, 1: 7}, {0: 9, 1: 7})
    assert "partition 0 offsets 5 to 8" in sentence
    assert "partition 1" not in sentence


def test_the_error_names_the_loss_and_the_command() -> None:
    losses = [
        noted_loss(cause="retention", partition=0, incarnation=1, expected=10, low=15, high=20),
        noted_loss(cause="truncated", partition=1, incarnation=1, expected=9, low=0, high=5),
    ]
    error = as_error(losses, "price")
    assert isinstance(error, DataLoss)
    assert error.message == (
        "stream price: partition 0: offsets 10 to 14 were deleted before they were read (the log held 15 to 20) (and 1"
        " more partitions). Nothing was skipped. The stream stops until an operator accepts the loss:"
        " ingest accept-loss price"
    )
    assert (error.partition, error.offset) == (0, 10)
    renamed = find_losses(SAME, "new", {0: position(10)}, noted=[], starts={}, highs={})
    assert isinstance(as_error(renamed, "price"), TopicChanged)


@pytest.mark.parametrize(("place", "offset"), [(None, 3), ("latest", 5), (4, 4), (datetime(2026, 1, 1, tzinfo=UTC), 5)])
def test_a_partition_whose_leader_is_away_is_not_accepted(place: str | int | datetime | None, offset: int) -> None:
    broker = MemoryBroker({"t": 2})
    for partition in (0, 1):
        for _ in range(5):
            broker.append("t", partition, b"x")
        broker.delete_records("t", partition, 3)
    losses = [
        noted_loss(cause=LossCause.RETENTION, partition=partition, incarnation=1, expected=1, low=3, high=5)
        for partition in (0, 1)
    ]
    topic = MemoryTopic(broker, "t")
    broker.set_leader_away("t", 1, True)
    with pytest.raises(KafkaUnavailable, match=r"partition 1: .*nothing was accepted"):
        acceptances(topic, losses, place)
    broker.set_leader_away("t", 1, False)
    resumed = [accepted.resume_at for accepted in acceptances(topic, losses, place)]
    assert [start.next_offset for start in resumed if start is not None] == [offset, offset]

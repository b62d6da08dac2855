"""What Kafka no longer holds: told from holes that are none, and where to go on."""

from __future__ import annotations

import pytest

from ingest_pipeline.core.errors import DataLoss, TopicChanged
from ingest_pipeline.core.loss import Acceptance, Loss, Standing, as_error, find_losses, first_place, noted_loss
from ingest_pipeline.core.record import Place, TopicIdentity

SAME = TopicIdentity("cluster", "topic", 2)


def standing(next_offset: int, **changes: str | None) -> Standing:
    return Standing(
        **{**dict(topic="t", cluster_id="cluster", topic_id="topic"), **changes}, incarnation=1, next_offset=next_offset
    )  # type: ignore[arg-type]


def found(
    at: Standing, low: int, high: int, identity: TopicIdentity = SAME, noted: list[Loss] | None = None
) -> list[tuple[str, int]]:
    losses = find_losses(identity, "t", {0: at}, noted or [], {0: Place(low)}, {0: Place(high)})
    return [(loss.cause, loss.next_offset) for loss in losses]


@pytest.mark.parametrize(("low", "high"), [(0, 10), (10, 10), (10, 20), (0, 20)])
def test_inside_the_log_and_at_its_bounds_nothing_is_lost(low: int, high: int) -> None:
    assert found(standing(10), low, high) == []


@pytest.mark.parametrize(
    ("at", "low", "high", "identity", "cause"),
    [
        (standing(10), 11, 20, SAME, "retention"),
        (standing(10), 0, 9, SAME, "truncated"),
        (standing(10, cluster_id="old"), 0, 20, SAME, "other cluster"),
        (standing(10, topic_id="old"), 0, 20, SAME, "other topic"),
        (standing(10, topic="old"), 0, 20, SAME, "renamed"),
        (standing(10, topic_id=None), 0, 20, TopicIdentity("cluster", "topic", 0), "fewer partitions"),
        (standing(10, topic_id="old"), 11, 20, SAME, "other topic"),
    ],
)
def test_each_cause_is_named(at: Standing, low: int, high: int, identity: TopicIdentity, cause: str) -> None:
    assert found(at, low, high, identity) == [(cause, 10)]


def test_an_id_that_either_side_lacks_says_nothing() -> None:
    assert found(standing(10, topic_id=None, cluster_id=None), 0, 20) == []
    assert found(standing(10), 0, 20, TopicIdentity(None, None, 2)) == []


def test_what_was_noted_stays_though_the_log_has_regrown() -> None:
    noted = noted_loss("truncated", 0, 1, 10, 0, 4)
    assert found(standing(10), 0, 50, noted=[noted]) == [("truncated", 10)]
    assert first_place(noted, {0: Place(0)}) == Place(0), "it may have been cut at 2 and have regrown to 4 by then"
    assert first_place(noted, {0: Place(6)}) == Place(6)


def test_where_to_go_on() -> None:
    starts = {0: Place(11, 3)}
    retention = noted_loss("retention", 0, 1, 10, 11, 20)
    rewritten = noted_loss("rewritten", 0, 1, 15, 11, 20)
    assert first_place(retention, starts) == first_place(rewritten, starts) == Place(11, 3)
    assert first_place(retention, {}) is None
    assert not Acceptance(retention, Place(11)).new_incarnation
    assert Acceptance(retention, Place(5)).new_incarnation, "rows below the position would be stored again"
    assert Acceptance(rewritten, Place(11)).new_incarnation


def test_the_error_says_what_and_what_to_do() -> None:
    losses = [noted_loss("retention", 0, 1, 10, 15, 20), noted_loss("truncated", 1, 1, 9, 0, 5)]
    error = as_error(losses, "price")
    assert isinstance(error, DataLoss)
    assert error.message == (
        "stream price: partition 0: offsets 10 to 14 were deleted before they were read (the log held 15 to 20) (and 1"
        " more partitions). Nothing was skipped; the stream stands still until an operator accepts it:"
        " ingest accept-loss price"
    )
    assert (error.partition, error.offset) == (0, 10)
    renamed = find_losses(SAME, "new", {0: standing(10)}, [], {}, {})
    assert isinstance(as_error(renamed, "price"), TopicChanged)

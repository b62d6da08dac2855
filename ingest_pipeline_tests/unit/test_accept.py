"""The places that an operator may accept after a loss."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ingest_pipeline.core.errors import KafkaUnavailable
from ingest_pipeline.core.loss import LossCause, noted_loss
from ingest_pipeline.operations.losses import acceptances
from ingest_pipeline.testing import MemoryBroker, MemoryTopic


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

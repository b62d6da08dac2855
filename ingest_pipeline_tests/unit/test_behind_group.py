"""A ledger behind the offsets of its own group."""

from datetime import UTC, datetime

import pytest

from ingest_pipeline.core.behind_group import behind_group
from ingest_pipeline_tests.samples import stored_position

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("next_offset", "first_offset", "commits", "behind"),
    [
        (10, 0, {0: 11}, True),
        (10, 0, {0: 10}, False),
        (10, 0, {}, False),
        (10, 10, {0: 99}, False),  # begun again after a truncation was accepted
    ],
)
def test_only_a_position_that_has_moved_and_went_back_is_behind(
    next_offset: int, first_offset: int, commits: dict[int, int], behind: bool
) -> None:
    position = stored_position(
        partition=0, topic="price", next_offset=next_offset, first_offset=first_offset, updated_at=NOW
    )
    assert (behind_group("group", {0: position}, commits) is not None) is behind


def test_the_sentence_lists_ten_partitions() -> None:
    positions = {p: stored_position(partition=p, topic="price", next_offset=1, updated_at=NOW) for p in range(12)}
    message = behind_group("price", positions, dict.fromkeys(range(12), 101))
    assert message is not None
    assert message.startswith("the ledger is 1,200 offsets behind its own group price: partition 0 at 1 of 101, ")
    assert "partition 9 at 1 of 101 and 2 more. The database" in message

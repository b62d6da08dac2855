"""Only two looks at a COPY tell whether it makes progress."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ingest_pipeline.postgres.copy_progress import CopyLooks, CopyProgress
from ingest_pipeline.testing.clock import SettableClock

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
COPY = CopyProgress(BEGAN, BEGAN, 0, 0)


def test_an_old_copy_that_moves_is_never_stalled() -> None:
    clock = SettableClock()
    looks = CopyLooks(clock)
    assert looks.seconds_standing(7, COPY) is None
    for second in range(1, 40):
        clock.sleep(1.0)
        assert looks.seconds_standing(7, replace(COPY, bytes_processed=400_000 * second)) == 0


def test_a_stalled_copy_counts_from_the_first_look_at_its_size() -> None:
    clock = SettableClock()
    looks = CopyLooks(clock)
    assert looks.seconds_standing(7, COPY) is None
    clock.sleep(3.0)
    assert looks.seconds_standing(7, COPY) == 3.0
    clock.sleep(4.0)
    assert looks.seconds_standing(7, COPY) == 7.0
    looks.moved(7)
    assert looks.seconds_standing(7, COPY) is None


def test_another_copy_at_the_same_place_is_another_one() -> None:
    """A stream's batches are often of the same size. A process id may be used again."""
    clock = SettableClock()
    looks = CopyLooks(clock)
    looks.seconds_standing(7, COPY)
    clock.sleep(60.0)
    later = BEGAN + timedelta(seconds=60)
    assert looks.seconds_standing(7, replace(COPY, state_change=later)) == 0
    assert looks.seconds_standing(7, replace(COPY, backend_start=later)) is None


def test_sessions_that_are_gone_are_forgotten() -> None:
    clock = SettableClock()
    looks = CopyLooks(clock)
    for pid in range(1000):
        looks.seconds_standing(pid, COPY)
        clock.sleep(10.0)
    assert len(looks._standing) < 100

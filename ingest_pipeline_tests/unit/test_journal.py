"""What a run writes to Dagster is tried again, in order, for a bounded time, and a bug stays one."""

import logging
import sqlite3
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from ingest_pipeline.orchestration.run.journal import AGAIN_SECONDS, FINISH_SECONDS, Journal
from ingest_pipeline.orchestration.storage_errors import storage_errors
from ingest_pipeline.testing import SettableClock

KEY = dg.AssetKey("price")
FULL = sqlite3.OperationalError("database or disk is full")


class Storage:
    """Takes writes while `error` is None."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.taken: list[Any] = []
        self.tries = 0

    def take(self, *what: Any) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error
        self.taken.append(what[-1])


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def journal(storage: Storage, clock: SettableClock) -> Journal:
    context: Any = SimpleNamespace(
        log_event=storage.take,
        instance=SimpleNamespace(add_run_tags=storage.take),
        log=SimpleNamespace(info=storage.take, warning=storage.take),
    )
    return Journal(context, clock, logging.getLogger("ingest_pipeline_tests.journal"))


def observation(rows: int) -> dg.AssetObservation:
    return dg.AssetObservation(KEY, metadata={"rows": rows})


def check(name: str, passed: bool) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(asset_key=KEY, check_name=name, passed=passed)


def test_what_can_be_written_is_written_at_once(journal: Journal, storage: Storage) -> None:
    journal.event(observation(1))
    journal.tags("run", {"a": "1"})
    journal.info("said")
    assert storage.taken == [observation(1), {"a": "1"}, "said"]


def test_what_cannot_is_written_later_in_order_and_the_newest_of_its_kind(
    journal: Journal, storage: Storage, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    storage.error = FULL
    journal.event(observation(1))
    journal.event(check("one", False))
    journal.event(check("other", True))
    journal.warning("said")
    journal.event(observation(2))
    journal.event(check("one", True))
    assert storage.tries == 1, "no other write is tried at once: each may wait for a lock"
    assert "does not take event report of price (OperationalError)" in caplog.text
    storage.error = None
    clock.advance(AGAIN_SECONDS)
    journal.tags("run", {"a": "1"})
    expected = [check("other", True), "said", observation(2), check("one", True), {"a": "1"}]
    assert storage.taken == expected


def test_the_end_waits_for_the_storage(journal: Journal, storage: Storage, clock: SettableClock) -> None:
    storage.error = FULL
    journal.tags("run", {"ended": "age"})
    sleep = clock.sleep

    def sleep_and_mend(seconds: float) -> None:
        sleep(seconds)
        storage.error = None

    clock.sleep = sleep_and_mend  # type: ignore[method-assign]
    journal.finish()
    assert storage.taken == [{"ended": "age"}]


def test_but_not_for_ever(
    journal: Journal, storage: Storage, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    storage.error = FULL
    journal.tags("run", {"ended": "age"})
    began = clock.monotonic()
    journal.finish()
    assert FINISH_SECONDS <= clock.monotonic() - began <= FINISH_SECONDS + 2
    assert "took no write: tags ended not written" in caplog.text
    tries = storage.tries
    journal.finish()
    assert storage.tries == tries, "it was given up"


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug"), dg.DagsterInvariantViolationError("a bug")])
def test_a_bug_is_raised(journal: Journal, storage: Storage, error: Exception) -> None:
    storage.error = error
    with pytest.raises(type(error)):
        journal.event(observation(1))
    assert not isinstance(error, storage_errors())

"""Dagster's own storage is full, locked or away while a run drains: rows go on, and reports come later."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from dagster._core.storage.event_log import SqliteEventLogStorage

from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.run.journal import AGAIN_SECONDS
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.records import temperatures

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]


@contextmanager
def new_connections(pragma: str) -> Iterator[list[str]]:
    """Every new SQLite connection of this process gets the pragma. Yields SQLite's errors."""
    errors: list[str] = []

    def set_pragma(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute(f"pragma {pragma}")

    def note(context: Any) -> None:
        if context.sqlalchemy_exception is not None:
            errors.append(str(context.original_exception))

    sqlalchemy.event.listen(sqlalchemy.pool.Pool, "connect", set_pragma)
    sqlalchemy.event.listen(sqlalchemy.Engine, "handle_error", note)
    try:
        yield errors
    finally:
        sqlalchemy.event.remove(sqlalchemy.pool.Pool, "connect", set_pragma)
        sqlalchemy.event.remove(sqlalchemy.Engine, "handle_error", note)


def full_disk() -> AbstractContextManager[list[str]]:
    """SQLite takes a smaller maximum for the present size, so that no file grows."""
    return new_connections("max_page_count = 1")


@contextmanager
def raising(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[list[str]]:
    """Dagster's event storage and its run storage take no write. Yields a line for each."""
    message: list[str] = []

    def refuse(*_: object, **__: object) -> None:
        message.append("refused")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(SqliteEventLogStorage, "store_event", refuse)
        patch.setattr("dagster._core.storage.runs.SqliteRunStorage.add_run_tags", refuse)
        yield message


@contextmanager
def locked(instance_folder: Path) -> Iterator[list[str]]:
    """Another process holds the files of the instance's event log. SQLite waits 0.1 s for a lock instead of 30 s."""
    connections = [sqlite3.connect(file, isolation_level=None) for file in instance_folder.rglob("*.db")]
    for connection in connections:
        connection.execute("begin exclusive")
    try:
        with new_connections("busy_timeout = 100") as errors:
            yield errors
    finally:
        for connection in connections:
            connection.close()


class Outage:
    """Begins in the middle of a drain, when the first batch is stored, and ends when all rows but one batch are.

    Between two batches the clock moves on, so that every batch is reported and a failed write is tried again.
    """

    def __init__(self, bench: Bench, outage: Any, batches: int) -> None:
        self.said: list[str] = []
        entered: list[Any] = []
        count = 0

        def write(stored: Callable[[Any], Any], batch: Any) -> Any:
            nonlocal count
            count += 1
            if count == 2:
                entered.append(outage)
                self.said = outage.__enter__()
            if count == batches:
                entered.pop().__exit__(None, None, None)
            bench.clock.seconds += 2 * AGAIN_SECONDS
            return stored(batch)

        bench.clients.changes["ledger_session"]["write"] = write


def drained_through(bench: Bench, outage: Any) -> tuple[str, list[str]]:
    """A run of six batches whose storage is away from the second to the last one: (its id, what the storage said)."""
    batches = 6
    bench.produce(temperatures(10 * batches, partitions=1))
    there = Outage(bench, outage, batches)
    run_id = bench.drain()
    assert bench.rows() == 10 * batches
    return run_id, there.said


@pytest.fixture
def bench(make_bench: Make) -> Bench:
    return make_bench(partitions=1, REPORT_SECONDS="1", BATCH_SIZE="10", RECORDS_PER_COMMIT="1")


def assert_everything_is_reported(bench: Bench, run_id: str) -> None:
    assert bench.outcome(run_id) == ("caught-up", "60")
    assert bench.run_tags(run_id)[tags.STREAM] == "temperature"
    events = [entry.dagster_event for entry in bench.instance.all_logs(run_id) if entry.dagster_event is not None]
    kinds = [event.event_type_value for event in events]
    assert kinds.count("ASSET_OBSERVATION") >= 1
    assert kinds.count("ASSET_CHECK_EVALUATION") >= 5
    assert kinds.count("ASSET_MATERIALIZATION") == 1
    assert kinds[-1] == "PIPELINE_SUCCESS"


@pytest.mark.parametrize(
    "error",
    [
        sqlalchemy.exc.OperationalError("insert", {}, sqlite3.OperationalError("database or disk is full")),
        sqlalchemy.exc.InterfaceError("insert", {}, Exception("the connection was closed")),
        sqlalchemy.exc.TimeoutError("QueuePool limit reached"),
        sqlite3.OperationalError("disk I/O error"),
        OSError(28, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_storage_that_refuses_for_a_while(bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    run_id, message = drained_through(bench, raising(monkeypatch, error))
    assert message
    assert_everything_is_reported(bench, run_id)


def test_a_full_disk(bench: Bench) -> None:
    run_id, message = drained_through(bench, full_disk())
    assert any("database or disk is full" in line for line in message)
    assert_everything_is_reported(bench, run_id)


def test_a_locked_file(bench: Bench) -> None:
    run_id, errors = drained_through(bench, locked(Path(bench.instance.root_directory)))
    assert "database is locked" in errors
    assert_everything_is_reported(bench, run_id)

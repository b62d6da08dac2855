"""Rows that only the database refuses, identified by the line that COPY names or by halving the batch."""

import random
import time
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Connection

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.core.errors import RecordRefused
from ingest_pipeline.core.record import EventRow
from ingest_pipeline.postgres.copy import OPTION
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.errors import mapped_errors
from ingest_pipeline.postgres.refused_rows import store_isolated
from ingest_pipeline.postgres.schema import migrate
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.postgres.statements import Statements
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline.streams import STREAMS

from . import document
from .effort import Effort
from .system import System

BATCH = 1000


def section(running: System, effort: Effort) -> str:
    rows = []
    plain, _ = seconds_a_batch(running, 0, 50)
    for refused in (1, 10, 100):
        by_line, halving = seconds_a_batch(running, refused, 20)
        rows.append((str(refused), f"{by_line / plain:.1f}", f"{halving / plain:.1f}", f"{halving / by_line:.1f}"))
    return (
        f"Time for a batch of {BATCH:,} rows of which some break a CHECK, as a multiple of one that breaks none.\n\n"
        + document.table(["refused", "by the line COPY names", "by halving", "ratio of the two"], rows)
    )


def seconds_a_batch(running: System, refused: int, batches: int) -> tuple[float, float]:
    """(by COPY's line, by halving): seconds for a batch of 1,000 rows of which `refused` break a CHECK."""
    stream = STREAMS[0]
    schemas = Schemas("isolation", "isolation_ledger")
    database = Database(sqlalchemy_url(running.database_url), schemas)
    migrate(database, [stream])
    table = f"isolation.{stream.table}"
    running.execute(f"ALTER TABLE {table} ADD CHECK (device_id <> 'bad')")
    sql = Statements(stream, schemas)
    time_of_event, bad = datetime(2026, 1, 1, tzinfo=UTC), set(random.Random(refused).sample(range(BATCH), refused))
    rows: list[EventRow] = [(1, 0, i, 0, "bad" if i in bad else "dev-0001", 21.5, time_of_event) for i in range(BATCH)]
    spent = {True: 0.0, False: 0.0}
    with progress(f"batches with {refused} refused", 2 * batches) as show:
        for number in range(2 * batches):
            by_line = number % 2 == 0
            running.execute(f"TRUNCATE {table}")
            started = time.monotonic()
            with database.connect("measuring") as connection:
                store_isolated(connection, rows, partial(_store, connection, sql, by_line))
            spent[by_line] += time.monotonic() - started
            show(number + 1)
    database.dispose()
    for name in ("isolation", "isolation_ledger"):
        running.execute(f"DROP SCHEMA {name} CASCADE")
    return spent[True] / batches, spent[False] / batches


def _store(connection: Connection, sql: Statements, by_line: bool, rows: list[EventRow]) -> None:
    try:
        with mapped_errors("measuring"):
            connection.exec_driver_sql(sql.insert, rows, {OPTION: sql.copy})
    except RecordRefused as error:
        if by_line:
            raise
        raise RecordRefused(error.message, stage="insert") from error

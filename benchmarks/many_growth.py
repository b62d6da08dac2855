"""How Dagster's storage grows with many streams in one job."""

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import click

from ingest_pipeline.settings import JobSettings
from ingest_pipeline_tests.orchestration.bench import wait_for

from . import document
from .idle import SETTLE_SECONDS
from .many_load import draining
from .system import System

_DAY_SECONDS = 86_400
_TABLES = """SELECT name FROM sqlite_master
    WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'alembic_version'"""


def section(running: System, streams: int, seconds: int) -> str:
    rows = []
    for per_second in (1.0, 0.0):
        with draining(running, streams, 1, per_second, {"RUN_MAX_SECONDS": str(max(60, seconds))}) as (dagster, _, _):
            storage = dagster.folder / ".dagster_storage"
            # A stream's first run reports every check. Later runs report what has changed.
            wait_for("the end of the first run", lambda: any(run.ended for run in dagster.runs()), 900, every=1.0)
            time.sleep(SETTLE_SECONDS)
            before = size(storage)
            time.sleep(seconds)
            grown = [after - earlier for after, earlier in zip(size(storage), before, strict=True)]
        name = f"{streams} streams, {per_second:g} records/s each"
        entries, database_mib, log_mib = (value * _DAY_SECONDS / seconds for value in grown)
        click.echo(f"  growth with {name}: {grown} in {seconds} s")
        rows.append((name, f"{entries:,.0f}", f"{database_mib:.1f}", f"{log_mib:.1f}"))
    return (
        "Growth of Dagster's storage (SQLite, no retention) in a day, from a sample of"
        f" {seconds} s\nwith RUN_MAX_SECONDS={max(60, seconds)}. The default of"
        f" {JobSettings().run_max_seconds} costs less.\n\n"
    ) + document.table(["load", "rows a day", "MiB a day in its databases", "MiB a day of compute logs"], rows)


def size(storage: Path) -> tuple[float, float, float]:
    """Rows of all databases, MiB of the databases, MiB of the compute logs."""
    databases = list(storage.rglob("*.db"))
    return (
        float(sum(map(_rows, databases))),
        _mib(file for database in databases for file in database.parent.glob(f"{database.name}*")),
        _mib((storage / "compute_logs").rglob("*")),
    )


def _rows(database: Path) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        names = [name for (name,) in connection.execute(_TABLES)]
        return sum(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names)


def _mib(files: Iterable[Path]) -> float:
    return sum(file.stat().st_size for file in files if file.is_file()) / (1 << 20)

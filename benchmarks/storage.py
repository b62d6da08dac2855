"""How Dagster's storage grows in SQLite and in PostgreSQL while two streams are drained."""

import time
from pathlib import Path

import click
from sqlalchemy.engine import make_url

from ingest_pipeline.demo.simulate import Plan
from ingest_pipeline.settings import JobSettings

from . import document, many_growth
from .effort import Effort
from .system import TOPICS, System, dagster_dev, send_all

_DAY_SECONDS = 86_400
_POSTGRES = """
storage:
  postgres:
    postgres_db:
      {{scheme: postgresql+psycopg2, hostname: "{host}", port: {port}, username: "{user}", password: "{password}",
       db_name: dagster}}
"""


def section(running: System, effort: Effort) -> str:
    run_seconds = max(10, round(JobSettings().run_max_seconds * effort.scale))
    seconds = 1.1 * run_seconds
    rows = []
    for kind in ("SQLite", "PostgreSQL"):
        runs, database, logs = _growth(running, run_seconds, seconds, postgres=kind == "PostgreSQL")
        click.echo(f"  {kind}: {runs} runs, {database:.2f} MiB, logs {logs:.2f} MiB")
        a_day = (database + logs) / len(TOPICS) * _DAY_SECONDS / seconds
        rows.append((kind, str(runs), f"{database:.2f}", f"{logs:.2f}", f"{a_day:.0f}"))
    head = ["storage", "ended runs", "MiB in the database", "MiB of compute logs", "MiB a day and stream"]
    return (
        f"1,000 records a second over two streams for {seconds:.0f} s with RUN_MAX_SECONDS={run_seconds}, so that each"
        " stream\nhas one hand-over. `maintenance` deletes old runs.\n\n"
    ) + document.table(head, rows)


def _growth(running: System, run_seconds: int, seconds: float, postgres: bool) -> tuple[int, float, float]:
    """Ended runs, MiB of the database and MiB of compute logs."""
    storage = ""
    if postgres:
        running.execute("CREATE DATABASE dagster")
        url = make_url(running.database_url)
        storage = _POSTGRES.format(host=url.host, port=url.port, user=url.username, password=url.password or "none")
    with dagster_dev(running, {"RUN_MAX_SECONDS": str(run_seconds)}, launcher=storage) as dagster:
        send_all(running, Plan(topics=TOPICS, rate=1000, seconds=15, broken_every=0))
        before, ended = _sizes(running, dagster.folder, postgres), sum(run.ended for run in dagster.runs())
        send_all(running, Plan(topics=TOPICS, rate=1000, seconds=seconds, broken_every=0))
        time.sleep(5.0)
        after, runs = _sizes(running, dagster.folder, postgres), sum(run.ended for run in dagster.runs()) - ended
    database, logs = (new - old for new, old in zip(after, before, strict=True))
    return runs, database, logs


def _sizes(running: System, folder: Path, postgres: bool) -> tuple[float, float]:
    """MiB of the database and of the compute logs."""
    _, database, logs = many_growth.size(folder / ".dagster_storage")
    if postgres:
        database = float(str(running.query("SELECT pg_database_size('dagster')")[0][0])) / (1 << 20)
    return database, logs

"""One backlog, drained by several designs one after the other on the same servers: rates and CPU a row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psycopg

from ingest_pipeline.orchestration import tags
from ingest_pipeline.postgres.engine import Database, Schemas
from ingest_pipeline.postgres.schema import migrate
from ingest_pipeline.settings_values import sqlalchemy_url
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration import killed_run
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev

from .system import TOPICS, System, dagster_dev

GIVE_UP_SECONDS = 1800.0
BASELINE = "asyncio design, batch 1,000"
VARIANTS: dict[str, dict[str, str]] = {
    "ours, batch 1,000 (default)": {},
    "ours, batch 10,000": {"BATCH_SIZE": "10000"},
    "ours, one batch a transaction": {"BATCHES_PER_COMMIT": "1"},
    "ours, WRITE_METHOD=executemany": {"WRITE_METHOD": "executemany"},
    "ours, DATABASE_SYNCHRONOUS_COMMIT=off": {"DATABASE_SYNCHRONOUS_COMMIT": "off"},
}
LIMITS = {"COPY alone, batch 1,000": 1000, "COPY alone, batch 10,000": 10_000}
Samples = list[tuple[float, int]]


@dataclass(frozen=True)
class Rate:
    """Rows a second of both streams together, between 10 % and 90 % of the records, and microseconds of client CPU a
    row there; for ours that is the run's process."""

    steady: float
    cpu_us: float


def measure(running: System, records: int, names: list[str]) -> dict[str, Rate]:
    """Each design on the backlog that stands in the topics, `records` over both."""
    found: dict[str, Rate] = {}
    for name in names:
        schema = f"bench_{len(found)}"
        if name in VARIANTS:
            found[name] = _ours(running, records, schema, VARIANTS[name])
        elif name in LIMITS:
            found[name] = _processes(running, "limit", records, schema, LIMITS[name])
        else:
            found[name] = _processes(running, "asyncio", records, schema, 1000)
        print(
            f"  {name:<40} {found[name].steady:>10,.0f} rows/s  {found[name].cpu_us:5.2f} µs of CPU a row", flush=True
        )
        with psycopg.connect(running.database_url, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
            connection.execute(f"DROP SCHEMA IF EXISTS {schema}_ledger CASCADE")
            connection.execute("CHECKPOINT")
    return found


def steady(samples: Samples) -> tuple[float, float, float]:
    """(rows a second, from, to) between 10 % and 90 % of the last sample's rows."""
    total = samples[-1][1]
    (low_at, low), (high_at, high) = (
        samples[bisect_left(samples, share * total, key=lambda sample: sample[1])] for share in (0.1, 0.9)
    )
    return (high - low) / (high_at - low_at), low_at, high_at


def _processes(running: System, kind: str, records: int, schema: str, batch: int) -> Rate:
    database = Database(sqlalchemy_url(running.database_url), Schemas(schema, f"{schema}_ledger"))
    migrate(database, STREAMS)
    database.dispose()
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.baseline",
                kind,
                running.bootstrap_servers,
                topic,
                str(records // len(TOPICS)),
                running.database_url,
                f"{schema}.{topic}",
                str(batch),
            ],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        for topic in TOPICS
    ]
    told = [json.loads(process.communicate(timeout=GIVE_UP_SECONDS)[0]) for process in started]
    each = [[(at, count) for at, count in one["samples"]] for one in told]
    rate, _, _ = steady(_added(each))
    return Rate(rate, sum(one["cpu_seconds"] for one in told) / records * 1e6)


def _added(each: list[Samples]) -> Samples:
    """The sum of several counts at every moment that one of them changed."""
    events = sorted((at, place, count) for place, samples in enumerate(each) for at, count in samples)
    now, added = [0] * len(each), []
    for at, place, count in events:
        now[place] = count
        added.append((at, sum(now)))
    return added


def _ours(running: System, records: int, schema: str, settings: Mapping[str, str]) -> Rate:
    """Through sensor-launched runs of a `dagster dev` of its own."""
    with dagster_dev(running, {**_own(schema), **settings}, schema) as dagster:
        return _watched(running, records, schema, lambda: _pids(dagster))


def without_dagster(running: System, records: int, settings: Mapping[str, str]) -> Rate:
    """The same runs, started by hand in processes of their own: seconds less to wait for."""
    folder = running.folder / "instance"
    folder.mkdir()
    dg.DagsterInstance.local_temp(str(folder)).dispose()
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": running.bootstrap_servers,
        "DATABASE_URL": running.database_url,
        "RUN_IDLE_SECONDS": "5",
        **_own("quick"),
        **settings,
    }
    processes = [killed_run.start(topic, topic, environ, folder) for topic in TOPICS]
    pids = [process.pid for process in processes if process.pid is not None]
    rate = _watched(running, records, "quick", lambda: pids)
    for process in processes:
        process.join()
    return rate


def _own(schema: str) -> dict[str, str]:
    return {"DATABASE_SCHEMA": schema, "LEDGER_SCHEMA": f"{schema}_ledger", "KAFKA_GROUP_PREFIX": f"{schema}-"}


def _watched(running: System, records: int, schema: str, find_pids: Callable[[], list[int]]) -> Rate:
    """Looks at the positions, and at the CPU of the runs' processes, until all records are accounted for."""
    samples: Samples = []
    cpu: list[float] = []
    pids: list[int] = []
    statement = f"SELECT coalesce(sum(next_offset), 0)::bigint FROM {schema}_ledger.position"
    deadline = time.monotonic() + GIVE_UP_SECONDS
    with psycopg.connect(running.database_url, autocommit=True) as connection:
        while not samples or samples[-1][1] < records:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {samples[-1:]} of {records:,} records after {GIVE_UP_SECONDS:.0f} s")
            time.sleep(0.02)
            if connection.execute(f"SELECT to_regclass('{schema}_ledger.position')").fetchall()[0][0] is None:
                continue
            found = connection.execute(statement).fetchall()[0][0]
            if found > 0 and not pids:
                pids = find_pids()
            samples.append((time.monotonic(), found))
            cpu.append(sum(map(_cpu_seconds, pids)))
    rate, low_at, high_at = steady(samples)
    low, high = (next(i for i, sample in enumerate(samples) if sample[0] >= at) for at in (low_at, high_at))
    return Rate(rate, (cpu[high] - cpu[low]) / (samples[high][1] - samples[low][1]) * 1e6)


def _pids(dagster: DagsterDev) -> list[int]:
    return [int(run.tags[tags.PID]) for run in dagster.runs() if tags.PID in run.tags and run.status == "STARTED"]


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process; what it had last when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _last_cpu.get(pid, 0.0)
    _last_cpu[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return _last_cpu[pid]


_last_cpu: dict[int, float] = {}

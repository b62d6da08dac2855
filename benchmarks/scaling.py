"""Rows a second against shards, what a shard and a million rows cost, and a topic of 1,000 partitions."""

import os
import statistics
import time
from dataclasses import dataclass

import click
import psutil
import psycopg
from confluent_kafka.admin import NewPartitions

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.demo.simulate import Plan
from ingest_pipeline_tests.orchestration.bench import wait_for

from . import document
from .effort import Effort
from .idle import idle, make_topics
from .processes import cpu_seconds, rss_mib
from .rates import rate, spread, window
from .system import PARTITIONS, TOPICS, System, dagster_dev, send_all
from .throughput import GIVE_UP_SECONDS, own_names, pids_of_runs

SHARDS = tuple(shards for shards in (1, 2, 4, 8) if shards <= max(2, os.cpu_count() or 1))
"""With more shards than cores, the first runs have drained their partitions before the last ones start."""
MANY_PARTITIONS = 1000
SENSORS = (1, 10)
_SESSIONS = """SELECT count(*)::int FROM pg_stat_activity WHERE application_name IN
    (SELECT 'ingest ' || run_id FROM scaling_ledger.position WHERE stream = 'temperature')"""


@dataclass(frozen=True)
class Drain:
    """One backlog, drained by this many shards.

    Attributes:
        rows: a second, while every shard drains.
        cpu, postgres_cpu: seconds of the runs and of PostgreSQL, for a million rows.
        mib: of the largest run.
        sessions: with PostgreSQL, of the runs.
    """

    rows: float
    cpu: float
    postgres_cpu: float
    mib: float
    sessions: int


def section(running: System, effort: Effort) -> str:
    records, seconds = effort.of(12_000_000), 60.0 * effort.scale
    return "\n\n".join(
        [_shards(running, records, effort.repeats), _sensors(running, seconds), _partitions(running, effort)]
    )


def _shards(running: System, records: int, repeats: int) -> str:
    send_all(running, Plan(topics=TOPICS[:1], rate=0, records=records, broken_every=0))
    drains: dict[int, list[Drain]] = {shards: [] for shards in SHARDS}
    sizes: list[str] = []
    for _ in range(repeats):
        for shards in SHARDS:
            wal = _wal_bytes(running)
            drains[shards].append(drain(running, records, shards))
            sizes = [f"{size / records:.0f}" for size in (*_table_bytes(running), _wal_bytes(running) - wal)]
            click.echo(f"  {shards} shards: {drains[shards][-1]}")
            for schema in ("scaling", "scaling_ledger"):
                running.execute(f"DROP SCHEMA {schema} CASCADE")
            running.execute("CHECKPOINT")
    rows = []
    for shards, measured in drains.items():
        ratios = [drain.rows / one.rows for drain, one in zip(measured, drains[1], strict=True)]
        figures = [statistics.median(getattr(drain, name) for drain in measured) for name in ("cpu", "postgres_cpu")]
        cells = [
            spread([drain.rows for drain in measured]),
            spread(ratios, 2),
            *(f"{figure:.1f}" for figure in figures),
        ]
        rows.append((str(shards), *cells, f"{max(drain.mib for drain in measured):.0f}", str(measured[-1].sessions)))
    head = [
        "shards",
        *(f"{what}, {part}" for what in ("rows/s", "ratio to one shard") for part in ("min", "median", "max")),
    ]
    head += ["CPU of runs, s", "CPU of PostgreSQL, s", "MiB a run", "PostgreSQL sessions"]
    return (
        f"{records:,} records of about 90 bytes wait in a topic of {PARTITIONS} partitions. Sensor-launched runs\n"
        f"drain them with `PARALLELISM` {', '.join(map(str, SHARDS))}, one after the other, in each of {repeats}\n"
        "rounds. CPU is for a million rows.\n"
        f"A row takes {sizes[0]} bytes in the table, {sizes[1]} in its indexes and {sizes[2]} in the WAL.\n\n"
    ) + document.table(head, rows)


def drain(running: System, records: int, shards: int) -> Drain:
    """Drain the topic from its beginning into tables of its own."""
    settings = {**own_names("scaling"), "TEMPERATURE_PARALLELISM": str(shards), "PRICE_RUN_IDLE_SECONDS": "0"}
    by_shard: dict[str, list[tuple[float, int]]] = {str(shard): [] for shard in range(shards)}
    samples: list[tuple[float, float, float]] = []
    statement = f"""SELECT (kafka_partition % {shards})::text, sum(next_offset)::bigint FROM scaling_ledger.position
        WHERE stream = '{TOPICS[0]}' GROUP BY 1"""
    mib, sessions = 0.0, 0
    pids: dict[int, float] = {}
    with (
        dagster_dev(running, settings) as dagster,
        psycopg.connect(running.database_url, autocommit=True) as connection,
        progress("draining", records) as show,
    ):
        postmaster = psutil.Process(connection.info.backend_pid).parent()
        assert postmaster is not None
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while (done := sum(counts[-1][1] for counts in by_shard.values() if counts)) < records:
            assert time.monotonic() < deadline, f"not all of {records:,} records after {GIVE_UP_SECONDS:.0f} s"
            show(done)
            time.sleep(0.1)
            if connection.execute("SELECT to_regclass('scaling_ledger.position')").fetchall() == [(None,)]:
                continue
            if len(pids) < shards:
                pids = dict.fromkeys(pids_of_runs(dagster, TOPICS[0]), 0.0)
            now = time.monotonic()
            for shard, count in connection.execute(statement):
                by_shard[shard].append((now, count))
            pids = {pid: before if (used := cpu_seconds(pid)) is None else used for pid, before in pids.items()}
            samples.append((now, sum(pids.values()), _family_cpu(postmaster)))
            mib = max([mib, *map(rss_mib, pids)])
            sessions = max(sessions, int(str(running.query(_SESSIONS)[0][0])))
    since, until = window(by_shard)
    (low_at, *low), (high_at, *high) = (
        next(sample for sample in samples if sample[0] >= edge) for edge in (since, until)
    )
    millions = rate(by_shard, low_at, high_at) * (high_at - low_at) / 1e6
    cpu, postgres_cpu = ((after - before) / millions for before, after in zip(low, high, strict=True))
    return Drain(rate(by_shard, since, until), cpu, postgres_cpu, mib, sessions)


def _sensors(running: System, seconds: float) -> str:
    make_topics(running, max(SENSORS))
    rows = []
    for streams in SENSORS:
        cost = idle(running, streams, poll_seconds=1, seconds=seconds)
        click.echo(f"  {streams} idle streams: {cost}")
        rows.append((str(streams), f"{cost.cores:.2f}", f"{cost.sessions:.0f}", f"{cost.mib:.0f}"))
    head = ["streams", "cores", "PostgreSQL sessions", "MiB of all processes"]
    return (
        f"Idle streams with a sensor each: `dagster dev` over {seconds:.0f} s, POLL_SECONDS=1, as under\n"
        "[idle streams](benchmarks.md#idle-streams), which has 100.\n\n"
    ) + document.table(head, rows)


def _partitions(running: System, effort: Effort) -> str:
    topic, partitions, records = TOPICS[1], effort.of(MANY_PARTITIONS), effort.of(1_000_000)
    running.kafka.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(60)
    running.kafka.wait_for_leaders(topic)
    send_all(running, Plan(topics=(topic,), rate=0, records=records, broken_every=0, symbols=10_000))
    stored = f"SELECT count(*), extract(epoch FROM max(ingested_at) - min(ingested_at))::float FROM {topic}"
    settings = {"KAFKA_GROUP_PREFIX": "partitions-", "TEMPERATURE_START_FROM": "latest"}
    with dagster_dev(running, settings) as dagster:
        wait_for("the table", lambda: running.query(f"SELECT to_regclass('{topic}')") != [(None,)], 300)
        wait_for("all rows", lambda: running.query(stored)[0][0] == records, GIVE_UP_SECONDS, every=1.0)
        seconds = float(str(running.query(stored)[0][1]))
        mib = max(map(rss_mib, pids_of_runs(dagster, topic)), default=0.0)
        time.sleep(30)
        ticks = dagster.tick_seconds(topic)
    return (
        f"A topic of {partitions:,} partitions and one run: {records:,} records in {seconds:.1f} s, {mib:.0f} MiB.\n"
        f"A tick of its sensor took {statistics.median(ticks):.2f} s in the median and {max(ticks):.2f} s at most"
        f" ({len(ticks)} ticks)."
    )


def _table_bytes(running: System) -> tuple[int, int]:
    """(the table, its indexes)."""
    table = f"'scaling.{TOPICS[0]}'"
    sizes = running.query(f"SELECT pg_table_size({table}), pg_indexes_size({table})")[0]
    return int(str(sizes[0])), int(str(sizes[1]))


def _wal_bytes(running: System) -> int:
    return int(str(running.query("SELECT (pg_current_wal_lsn() - '0/0')::bigint")[0][0]))


def _family_cpu(process: psutil.Process) -> float:
    """CPU seconds of the process, its ended children and its running ones."""
    return sum(cpu_seconds(member.pid) or 0.0 for member in [process, *process.children(recursive=True)])

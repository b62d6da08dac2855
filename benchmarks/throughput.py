"""One backlog, drained by several designs one after the other on the same servers: rates, CPU a row, memory."""

import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import dagster as dg
import psycopg

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.local.server import HOST
from ingest_pipeline.orchestration import tags
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.schema import migrate
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration import killed_run
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev
from ingest_pipeline_tests.servers.proxy import TcpProxy

from . import document
from .effort import Effort
from .processes import cpu_seconds, rss_mib
from .rates import SPREAD, rate, spread, window
from .system import TOPICS, System, dagster_dev

GIVE_UP_SECONDS = 1800.0
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Variant:
    """Ours, with these settings. A proxy before PostgreSQL can add milliseconds to each round trip."""

    settings: Mapping[str, str] = field(default_factory=dict)
    round_trip_ms: float | None = None


BASELINE, LIMIT, LIMIT_10K = "the plain asyncio design", "COPY alone, batch 1,000", "COPY alone, batch 10,000"
UNDECODED_10K = "read, not decoded, and COPY, batch 10,000"
OURS, OURS_10K = "ours, batch 1,000 (default)", "ours, batch 10,000"
NEAR, FAR = "ours, through a proxy", "ours, through a proxy, 2 ms a round trip"
VARIANTS = {
    OURS: Variant(),
    OURS_10K: Variant({"BATCH_SIZE": "10000"}),
    "ours, one batch a transaction": Variant({"RECORDS_PER_COMMIT": "1000"}),
    "ours, `WRITE_METHOD=executemany`": Variant({"WRITE_METHOD": "executemany"}),
    "ours, `DATABASE_SYNCHRONOUS_COMMIT=off`": Variant({"DATABASE_SYNCHRONOUS_COMMIT": "off"}),
    NEAR: Variant(round_trip_ms=0),
    FAR: Variant(round_trip_ms=2),
}
OTHERS = {
    BASELINE: ("asyncio", 1000),
    LIMIT: ("limit", 1000),
    LIMIT_10K: ("limit", 10_000),
    UNDECODED_10K: ("undecoded", 10_000),
}
COMPARED = [
    (OURS, BASELINE),
    (OURS_10K, BASELINE),
    (UNDECODED_10K, BASELINE),
    (OURS, LIMIT),
    (OURS_10K, LIMIT_10K),
    (OURS_10K, UNDECODED_10K),
    (FAR, NEAR),
]


@dataclass(frozen=True)
class Rate:
    """Rows a second of both streams together while both drain, microseconds of client CPU a row there, and the
    largest process's resident MiB (for ours: the run's process)."""

    steady: float
    cpu_us: float
    rss_mib: float = 0.0

    def __str__(self) -> str:
        return f"{self.steady:>10,.0f} rows/s  {self.cpu_us:5.2f} µs of CPU a row  {self.rss_mib:4.0f} MiB"


def section(running: System, effort: Effort) -> str:
    records = running.produce(effort.of(2_000_000), broken_every=0).acknowledged
    names = [*OTHERS, *VARIANTS]
    repeats = [measure(running, records, names) for _ in range(effort.repeats)]

    def ratios(name: str, base: str) -> str:
        return spread([rates[name].steady / rates[base].steady for rates in repeats], 2)

    designs = [(name, *_cells([rates[name] for rates in repeats])) for name in names]
    head = ["design", *(f"rows/s, {name}" for name in SPREAD), "client CPU a row, µs", "most resident MiB"]
    return "\n\n".join(
        [
            f"{records:,} records of about 90 bytes wait in two topics of 4 partitions. Each design drains\n"
            "them into its own tables, with a primary key on the Kafka coordinates. Rows a second of both\n"
            "topics together, while both are drained (10 % to 90 %). Ours goes through sensor-launched runs\n"
            "of `dagster dev`, and its CPU is that of the runs' processes. All designs run one after the\n"
            f"other on the same servers, {effort.repeats} times.",
            document.table(head, designs),
            document.table(["ratio", *SPREAD], [(f"{name} / {base}", ratios(name, base)) for name, base in COMPARED]),
        ]
    )


def _cells(rates: Sequence[Rate]) -> tuple[str, str, str]:
    cpu_us = statistics.median(rate.cpu_us for rate in rates)
    return spread([rate.steady for rate in rates]), f"{cpu_us:.2f}", f"{max(rate.rss_mib for rate in rates):.0f}"


def measure(running: System, records: int, names: Sequence[str]) -> dict[str, Rate]:
    """Each design on the backlog that stands in the topics, `records` over both."""
    rates: dict[str, Rate] = {}
    for name in names:
        schema = f"bench_{len(rates)}"
        if name in VARIANTS:
            rates[name] = _ours(running, records, schema, VARIANTS[name])
        else:
            rates[name] = _others(running, records, schema, *OTHERS[name])
        print(f"  {name:<42} {rates[name]}", flush=True)
        for statement in (f"DROP SCHEMA {schema} CASCADE", f"DROP SCHEMA {schema}_ledger CASCADE", "CHECKPOINT"):
            running.execute(statement)
    return rates


def _others(running: System, records: int, schema: str, kind: str, batch: int) -> Rate:
    """A process a topic, into tables as ours are."""
    database = Database(sqlalchemy_url(running.database_url), Schemas(schema, f"{schema}_ledger"))
    migrate(database, STREAMS)
    database.dispose()
    share, url = str(records // len(TOPICS)), running.database_url
    commands = [
        [kind, running.bootstrap_servers, topic, share, url, f"{schema}.{topic}", str(batch)] for topic in TOPICS
    ]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.baseline", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[1],
        )
        for command in commands
    ]
    stored = f"SELECT coalesce(sum(n_tup_ins), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = '{schema}'"
    with ThreadPoolExecutor(len(started)) as pool, progress("draining", records) as show:
        ends = [pool.submit(process.communicate, timeout=GIVE_UP_SECONDS) for process in started]
        while wait(ends, _LOOK_SECONDS).not_done:
            show(int(str(running.query(stored)[0][0])))
    outputs = [json.loads(end.result()[0]) for end in ends]
    by_topic = {
        topic: [(seconds, count) for seconds, count in output["samples"]]
        for topic, output in zip(TOPICS, outputs, strict=True)
    }
    cpu_us = sum(output["cpu_seconds"] for output in outputs) / records * 1e6
    return Rate(rate(by_topic, *window(by_topic)), cpu_us, max(output["rss_mib"] for output in outputs))


def _ours(running: System, records: int, schema: str, variant: Variant) -> Rate:
    """Through sensor-launched runs of a `dagster dev` of its own."""
    settings = {**own_names(schema), **variant.settings}
    with ExitStack() as stack:
        if variant.round_trip_ms is not None:
            proxy = stack.enter_context(TcpProxy(running.database_port))
            proxy.latency(variant.round_trip_ms / 2000)
            settings["DATABASE_URL"] = through(proxy, running.database_url)
        dagster = stack.enter_context(dagster_dev(running, settings))
        return watched(running, records, schema, lambda: pids_of_runs(dagster))


def without_dagster(running: System, records: int, settings: Mapping[str, str]) -> Rate:
    """The same runs, started by hand in processes of their own: seconds less to wait for."""
    folder = running.fresh_folder("instance")
    dg.DagsterInstance.local_temp(str(folder)).dispose()
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": running.bootstrap_servers,
        "DATABASE_URL": running.database_url,
        "RUN_IDLE_SECONDS": "5",
        **own_names("quick"),
        **settings,
    }
    processes = [killed_run.start({topic: topic}, environ, folder) for topic in TOPICS]
    pids = [process.pid for process in processes if process.pid is not None]
    measured = watched(running, records, "quick", lambda: pids)
    for process in processes:
        process.join()
    return measured


def through(proxy: TcpProxy, url: str) -> str:
    """The database's URL, by the proxy's port."""
    address = urlsplit(url)
    user = address.netloc.rpartition("@")[0]
    return urlunsplit(address._replace(netloc=f"{user}@{HOST}:{proxy.port}"))


def watched(running: System, records: int, schema: str, find_pids: Callable[[], list[int]]) -> Rate:
    """Looks at the positions, and at the runs' processes, until all records are accounted for."""
    by_topic: dict[str, list[tuple[float, int]]] = {topic: [] for topic in TOPICS}
    cpu: list[tuple[float, float]] = []
    last: dict[int, float] = {}
    memory = 0.0
    statement = f"SELECT stream, sum(next_offset)::bigint FROM {schema}_ledger.position GROUP BY stream"
    deadline = time.monotonic() + GIVE_UP_SECONDS
    with (
        psycopg.connect(running.database_url, autocommit=True) as connection,
        progress("draining", records) as show,
    ):
        while sum(samples[-1][1] for samples in by_topic.values() if samples) < records:
            if time.monotonic() > deadline:
                raise SystemExit(f"not all of {records:,} records after {GIVE_UP_SECONDS:.0f} s")
            time.sleep(0.05)
            if connection.execute(f"SELECT to_regclass('{schema}_ledger.position')").fetchall()[0][0] is None:
                continue
            now = time.monotonic()
            for topic, count in connection.execute(statement):
                by_topic[topic].append((now, count))
            show(sum(samples[-1][1] for samples in by_topic.values() if samples))
            if len(last) < len(TOPICS):
                last = dict.fromkeys(find_pids(), 0.0)
            last = {pid: before if (used := cpu_seconds(pid)) is None else used for pid, before in last.items()}
            cpu.append((now, sum(last.values())))
            memory = max(memory, *map(rss_mib, last), 0.0)
    since, until = window(by_topic)
    (low_at, low), (high_at, high) = (next(sample for sample in cpu if sample[0] >= edge) for edge in (since, until))
    rows = rate(by_topic, low_at, high_at) * (high_at - low_at)
    return Rate(rate(by_topic, since, until), (high - low) / rows * 1e6, memory)


def own_names(schema: str) -> dict[str, str]:
    """Settings. The consumer group is new at each repeat, like its ledger."""
    group = f"{schema}-{uuid.uuid4().hex}-"
    return {"DATABASE_SCHEMA": schema, "LEDGER_SCHEMA": f"{schema}_ledger", "KAFKA_GROUP_PREFIX": group}


def pids_of_runs(dagster: DagsterDev, stream: str | None = None) -> list[int]:
    return [int(run.tags[tags.PID]) for run in dagster.runs(stream) if tags.PID in run.tags and run.status == "STARTED"]

"""Five streams with a draining run each, at default settings. A test can stop each run at a chosen point."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import dagster as dg
import psycopg

from ingest_pipeline.local.server import HOST
from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.faults.location import NAMES, STREAMS, SUFFIX
from ingest_pipeline_tests.faults.supervised import Dagster, is_gone, pid_of
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.orchestration.records import Record, produce
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url
from ingest_pipeline_tests.servers.proxy import TcpProxy

LARGE = 16_000
"""Records of a kilobyte, so that a COPY takes a while through a slow network."""
_LATENCY = 0.03
_SETTLE_SECONDS = 1.0
_SESSION = """select pid, client_port, state, coalesce(wait_event, ''), query from pg_stat_activity
    where application_name = %s and datname = current_database()"""


class World:
    """On entry, every stream's run drains and has reached the end of its topic."""

    def __init__(self, kafka: RealKafka, url: str, folder: Path, suffix: str) -> None:
        self.kafka, self.url, self._suffix = kafka, url, suffix
        self._folder = folder
        self._cleanup = ExitStack()
        self.produced = dict.fromkeys(NAMES, 0)

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._start(cleanup)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _start(self, cleanup: ExitStack) -> None:
        for name in NAMES:
            self.kafka.create_topic(name + self._suffix, 2)
            cleanup.callback(self.kafka.delete_topic, name + self._suffix)
        where = urlsplit(self.url)
        self._connection = cleanup.enter_context(psycopg.connect(self.url, autocommit=True))
        self.proxy = cleanup.enter_context(TcpProxy(where.port or 5432, where.hostname or HOST))
        writer = urlsplit(pipeline_url(self.url, STREAMS))
        proxied = writer._replace(netloc=f"{writer.username}:{writer.password}@{HOST}:{self.proxy.port}")
        environ = {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "KAFKA_GROUP_PREFIX": f"ownership{self._suffix}-",
            "DATABASE_URL": proxied.geturl(),
            "COPYING_BATCH_SIZE": str(LARGE),
            "COPYING_BATCH_TIMEOUT": "5",
            "RUN_IDLE_SECONDS": "3600",
            SUFFIX: self._suffix,
        }
        self.dagster = cleanup.enter_context(Dagster(self._folder, environ, "ingest_pipeline_tests.faults.location"))
        for name in NAMES:
            self.produce(name)
        for name in NAMES:
            wait_for(f"the rows of {name}", lambda name=name: self.complete(name), every=0.2)

    def produce(self, name: str, count: int = 2, padding: str = "") -> None:
        """Write distinct records to both partitions. Returns after all acknowledgements."""
        first = self.produced[name]
        value = '{"device_id": "dev-%08d' + padding + '", "temperature": 21.5, "timestamp": "2026-01-01T00:00:00Z"}'
        records = [Record((value % number).encode(), number % 2) for number in range(first, first + count)]
        self.produced[name] += count
        produce(self.kafka.bootstrap_servers, name + self._suffix, records)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Query PostgreSQL past the proxy. Rows with one column come back as plain values."""
        cursor = self._connection.execute(statement, values or None)
        return [row[0] if len(row) == 1 else row for row in cursor.fetchall()]

    def complete(self, name: str) -> bool:
        """Whether the table holds exactly the produced records, each once."""
        return self.sql(f'select count(*), count(distinct device_id) from "{name}"') == [(self.produced[name],) * 2]

    def run(self, name: str) -> dg.DagsterRun:
        """The run that owns the stream."""

        def owner() -> dg.DagsterRun | None:
            owners = set(self.sql("select run_id from ingest.position where stream = %s", name))
            live = [run for run in self.dagster.live_runs() if {run.run_id} == owners]
            return live[0] if live else None

        run: dg.DagsterRun = wait_for(f"the run of {name}", owner, every=0.2)
        return run

    def session(self, run: dg.DagsterRun) -> tuple[int, int, str, str, str]:
        """(backend pid, client port, state, wait event, statement) of the run's writing session."""
        session: tuple[int, int, str, str, str] = wait_for(
            "the run's session", lambda: self.sql(_SESSION, f"ingest {run.run_id}")
        )[0]
        return session

    def freeze(self, name: str, is_state: Callable[[str, str, str], bool]) -> dg.DagsterRun:
        """Send SIGSTOP to the run at a moment when its session is in the given state and stays there."""
        run = self.run(name)

        def stopped() -> bool:
            if not is_state(*self.session(run)[2:]):
                return False
            os.kill(pid_of(run), signal.SIGSTOP)
            time.sleep(_SETTLE_SECONDS)  # what was on its way arrives
            if is_state(*self.session(run)[2:]):
                return True
            os.kill(pid_of(run), signal.SIGCONT)
            return False

        wait_for(f"a moment to freeze {name}", stopped, every=0.005)
        return run

    def slow_network(self) -> None:
        self.proxy.latency(_LATENCY)

    def thaw(self, run: dg.DagsterRun) -> None:
        os.kill(pid_of(run), signal.SIGCONT)

    def outcome(self, run: dg.DagsterRun) -> str:
        """How the run's process reports its end, after the process is gone."""
        wait_for(f"the end of run {run.run_id}", lambda: is_gone(pid_of(run)), every=0.2)
        ended = self.dagster.instance.get_run_by_id(run.run_id)
        assert ended is not None
        return ended.tags.get(tags.ENDED, "")

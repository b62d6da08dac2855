"""A whole deployment on real servers, and what status, healthz, alerts and checks say about it at the same moment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import dagster as dg
import psutil

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.local.postgres import EmbeddedPostgres
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.orchestration.checks import check_results, limit_reached
from ingest_pipeline.settings import load_settings
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.commands import interruptible
from ingest_pipeline_tests.orchestration.dagster_dev import ROOT, DagsterDev
from ingest_pipeline_tests.orchestration.records import Record, produce, temperatures
from ingest_pipeline_tests.orchestration.webhook import Webhook
from ingest_pipeline_tests.servers.broker import RealKafka

TEMPERATURE: Stream = STREAMS[0]
ALERT_SECONDS = 30
_WELL = {"temperature is well again", "temperature, price are well again"}
HEALTH = {"healthy": 200, "degraded": 200, "stopped": 503, "unknown": 504}


@dataclass(frozen=True)
class Look:
    """What each of them says about the stream.

    Attributes:
        checks: the checks that do not pass, as the Execute button would find: name → description.
    """

    status: dict[str, Any]
    health: tuple[int, str]
    checks: dict[str, str]

    @property
    def level(self) -> str:
        return str(self.status["level"])


@dataclass
class Night:
    """Kafka, PostgreSQL, `dagster dev`, `ingest metrics --alerts` and a webhook."""

    folder: Path
    kafka: RealKafka
    postgres: EmbeddedPostgres
    webhook: Webhook
    environ: dict[str, str]
    address: str = ""
    dagster: DagsterDev | None = None
    table: list[str] = field(default_factory=list)

    @property
    def dev(self) -> DagsterDev:
        assert self.dagster is not None
        return self.dagster

    def start_dagster(self, **more: str) -> None:
        self.environ |= more
        self.dagster = DagsterDev(self.folder, self.environ)
        self.dagster.__enter__()

    def stop_dagster(self) -> None:
        self.dev.__exit__()

    def kill_daemon(self) -> None:
        """As an OOM kill. `dagster dev` itself may end too."""
        family = psutil.Process(self.dev.session).children(recursive=True)
        (daemon,) = [process for process in family if "dagster._daemon" in " ".join(process.cmdline())]
        daemon.kill()

    def produce(self, records: Sequence[Record] = ()) -> None:
        produce(self.kafka.bootstrap_servers, TEMPERATURE.topic, records or temperatures(10))

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """As the superuser."""
        return query(self.postgres.url_of("app"), statement, *values)

    def rows(self) -> int:
        return int(self.sql("select count(*) from temperature")[0])

    def ingest(self, *words: str) -> str:
        command = [sys.executable, "-m", "ingest_pipeline.cli.main", *words]
        done = subprocess.run(command, env=self._environ(), cwd=self.folder, capture_output=True, text=True)
        return done.stdout

    def look(self) -> Look:
        status: dict[str, Any]
        (status,) = json.loads(self.ingest("status", "temperature", "--json"))
        return Look(status, self._health(), self._checks())

    def is_well(self) -> bool:
        (status,) = json.loads(self.ingest("status", "temperature", "--json"))
        return bool(status["level"] == "healthy" and status["lag"] == 0)

    def owner_pid(self) -> int | None:
        """The process of the run that drains the stream."""
        owners = self.sql(
            "select substr(application_name, 8) from pg_stat_activity where application_name ~ 'ingest .'"
        )
        runs = [run for run in self.dev.runs("temperature") if run.run_id in owners]
        return int(runs[0].tags["ingest/pid"]) if runs and "ingest/pid" in runs[0].tags else None

    def _health(self) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{self.address}/healthz", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def _checks(self) -> dict[str, str]:
        clients = Clients(load_settings({stream.name: stream.job for stream in STREAMS}, self.environ))
        # The paths in dagster.yaml are relative.
        with chdir(self.folder), dg.DagsterInstance.from_config(str(self.folder)) as instance:
            limit = limit_reached(instance, TEMPERATURE)
        results = list(check_results(StreamContext(TEMPERATURE, clients), limit))
        clients.close()
        return {result.name: result.description for result in results if not result.passed}

    def _environ(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
        return {**kept, "PYTHONPATH": str(ROOT), "DAGSTER_HOME": str(self.folder), **self.environ}

    @contextmanager
    def serving_metrics(self) -> Iterator[None]:
        command = [sys.executable, "-m", "ingest_pipeline.cli.main", "metrics", "--port", "0", "--alerts"]
        with (self.folder / "metrics.log").open("w") as log:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environ(),
                cwd=self.folder,
                text=True,
                preexec_fn=interruptible,
            )
        assert process.stdout is not None
        address = re.search(r"http://\S+(?=/metrics)", process.stdout.readline())
        assert address is not None
        self.address = address[0]
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()

    def alert(self, skipped: int) -> str | None:
        """The first message about the stream behind the first messages."""
        return next((text for text in self.webhook.texts[skipped:] if text.startswith("temperature")), None)

    def is_posted_well(self, skipped: int) -> bool:
        """Whether a message behind the first messages says that the stream is well."""
        return any(text.splitlines()[0] in _WELL for text in self.webhook.texts[skipped:])

    def wait_until_well(self, seconds: float = 120) -> None:
        wait_for("the stream to be well", self.is_well, seconds, every=0.5)

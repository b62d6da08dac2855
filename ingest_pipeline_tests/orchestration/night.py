"""A whole deployment on real servers, and what status, healthz, alerts and checks say about it at the same moment."""

import json
import os
import re
import subprocess
import sys
import time
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
from ingest_pipeline.orchestration.checks import CHECKS, at_limit, limit_reached, newest_evaluation
from ingest_pipeline.orchestration.job_checks import check_results
from ingest_pipeline.settings import load_settings
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.commands import interruptible
from ingest_pipeline_tests.orchestration.dagster_dev import ROOT, DagsterDev
from ingest_pipeline_tests.orchestration.records import Record, produce, temperatures
from ingest_pipeline_tests.orchestration.webhook import Webhook
from ingest_pipeline_tests.servers.broker import RealKafka

TEMPERATURE: Stream = STREAMS[0]
ALERT_SECONDS = 60
"""The default of ALERT_AFTER_SECONDS."""
_WELL = {"temperature is well again", "temperature, price are well again"}
_RECOVERY_SECONDS = 150
_STATE = re.compile(r'ingest_stream_state\{state="(\w+)",stream="temperature"\} 1\.0')
HEALTH = {"healthy": 200, "degraded": 200, "stopped": 503, "unknown": 504}


@dataclass(frozen=True)
class Look:
    """What each of them says about the stream.

    Attributes:
        served: the status by `ingest metrics`.
        state: the metric ingest_stream_state.
        checks: the checks that do not pass, as the Execute button would find: name → description.
    """

    status: dict[str, Any]
    served: dict[str, Any]
    state: str
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
        (status,) = json.loads(self.ingest("status", "temperature", "--json"))
        state = _STATE.search(self._get("/metrics")[1])
        assert state is not None
        return Look(status, self.served(), state[1], self._get("/healthz"), self._checks())

    def served(self) -> dict[str, Any]:
        """The status by `ingest metrics`."""
        status: dict[str, Any] = json.loads(self._get("/status")[1])[0]
        assert status["stream"] == "temperature"
        return status

    def shown_checks(self) -> dict[str, str]:
        """The checks that do not pass in Dagster's UI: name → description."""
        with self._instance() as instance:
            newest = {name: newest_evaluation(instance, dg.AssetKey("temperature"), name) for name in CHECKS}
        return {name: result.description for name, result in newest.items() if result and not result.passed}

    def recovery(self, skipped: int) -> dict[str, float]:
        """Who → after how many seconds the words are right again.

        Args:
            skipped: earlier messages of the webhook.
        """
        is_right = {
            "status": lambda: self.served()["level"] == "healthy",
            "healthz": lambda: self._get("/healthz") == (200, "ok\n"),
            "alert": lambda: any(text.splitlines()[0] in _WELL for text in self.webhook.texts[skipped:]),
            "checks": lambda: self.shown_checks() == {},
        }
        began, seconds = time.monotonic(), dict[str, float]()
        while len(seconds) < len(is_right):
            now = time.monotonic() - began
            assert now < _RECOVERY_SECONDS, (seconds, self.served(), self.webhook.texts[skipped:], self.shown_checks())
            seconds |= {who: now for who, right in is_right.items() if who not in seconds and right()}
            time.sleep(0.2)
        return seconds

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

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{self.address}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def _checks(self) -> dict[str, str]:
        clients = Clients(load_settings({stream.name: stream.job for stream in STREAMS}, self.environ))
        with self._instance() as instance:
            limit = limit_reached(instance, StreamContext(TEMPERATURE, clients))
        results = at_limit(check_results([StreamContext(TEMPERATURE, clients)])[TEMPERATURE.name], limit)
        clients.close()
        return {result.name: result.description for result in results if not result.passed}

    @contextmanager
    def _instance(self) -> Iterator[dg.DagsterInstance]:
        # The paths in dagster.yaml are relative.
        with chdir(self.folder), dg.DagsterInstance.from_config(str(self.folder)) as instance:
            yield instance

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

    def wait_until_well(self, seconds: float = 120) -> None:
        wait_for("the stream to be well", self.is_well, seconds, every=0.5)

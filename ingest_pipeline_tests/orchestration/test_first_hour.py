"""A newcomer's first hour behind the demo: a stream of one's own on a Kafka of one's own, then in a `dg` project.

The last lines of the output are the seconds that each step took.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException

from ingest_pipeline.core.roles import Role
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.docs_commands import clone_with_stream_of_readme
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import ROOT, DagsterDev
from ingest_pipeline_tests.orchestration.test_embedding import PLACE, make_dg_project, project
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url

__all__ = ["project"]

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.empty_database, pytest.mark.timeout(600)]


@dataclass
class Newcomer:
    """Types the commands of a page in a folder."""

    folder: Path
    environ: dict[str, str]

    def ingest(self, *words: str, code: int = 0) -> str:
        began = time.monotonic()
        command = [sys.executable, "-m", "ingest_pipeline.cli.main", *words]
        done = subprocess.run(command, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False)
        print(f"{time.monotonic() - began:5.1f} s: ingest {' '.join(words)}")
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def status(self, code: int) -> dict[str, tuple[str, int | None]]:
        """Stream → its level and the records that wait."""
        shown: list[dict[str, Any]] = json.loads(self.ingest("status", "--json", code=code))
        return {stream["stream"]: (stream["level"], stream["lag"]) for stream in shown}


def stored(url: str, *tables: str) -> int:
    """The rows of the tables that exist."""
    made = [table for table in tables if query(url, "select to_regclass(%s)", table) != [None]]
    return sum(query(url, f"select count(*) from {table}")[0] for table in made)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return clone_with_stream_of_readme(tmp_path)


@pytest.fixture
def environ(own_kafka: RealKafka, database_url: str) -> Iterator[dict[str, str]]:
    """README's two settings."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
    url = pipeline_url(database_url, STREAMS, Role.OWNER)
    yield {**kept, "KAFKA_BOOTSTRAP_SERVERS": own_kafka.bootstrap_servers, "DATABASE_URL": url}
    for topic in ("temperature", "price", "humidity", "orders"):
        with suppress(KafkaException):  # the test made others
            own_kafka.delete_topic(topic)


def test_a_stream_of_ones_own_on_a_kafka_of_ones_own(clone: Path, environ: dict[str, str]) -> None:
    newcomer = Newcomer(clone, {**environ, "PYTHONPATH": str(clone)})
    shutil.copy(ROOT / "dagster.yaml", clone)
    checked = newcomer.ingest("check")
    assert "humidity" in checked
    with DagsterDev(clone, newcomer.environ):
        assert {level for level, _ in newcomer.status(code=1).values()} == {"degraded"}  # the topics are not there yet
        newcomer.ingest(
            *("simulate", "--topics", "temperature,price,humidity", "--create-topics"),
            *("--records", "300", "--rate", "0", "--broken-every", "0"),
        )
        streams = ("temperature", "price", "humidity")
        wait_for("the rows", lambda: stored(environ["DATABASE_URL"], *streams) == 300, 90)
        assert newcomer.status(code=0) == dict.fromkeys(streams, ("healthy", 0))
        assert stored(environ["DATABASE_URL"], *streams) == 300
        newcomer.ingest("check")
        newcomer.ingest("tail", "humidity", "-n", "1")
    newcomer.ingest("status")


def test_a_stream_in_a_dg_project(
    project: Path, environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    if find_spec("dagster_dg_cli") is None:
        pytest.skip("dagster-dg-cli is not installed")
    make_dg_project(project)
    environ |= {"PYTHONPATH": f"{project / 'src'}:{ROOT}", "INGEST_STREAMS": PLACE, "DAGSTER_DISABLE_TELEMETRY": "1"}
    newcomer = Newcomer(project, environ)
    newcomer.ingest("migrate")
    newcomer.ingest(
        "simulate", "--topics", "orders", "--create-topics", "--records", "50", "--rate", "0", "--broken-every", "0"
    )
    home = tmp_path_factory.mktemp("home")
    with DagsterDev(home, {**environ, "HOME": str(home), "DAGSTER_HOME": str(home)}, project=project) as dagster:
        keys = {
            "/".join(node["assetKey"]["path"]) for node in dagster.ask("{assetNodes {assetKey {path}}}")["assetNodes"]
        }
        assert keys == {"revenue", "shop/kafka/orders", "shop/orders"}
        wait_for("the rows", lambda: stored(environ["DATABASE_URL"], "orders") == 50, 90)
        assert stored(environ["DATABASE_URL"], "orders") == 50
        assert newcomer.status(code=0) == {"orders": ("healthy", 0)}

"""`ingest demo` as a user starts it: rows arrive through sensor runs, runs are killed, and no process remains."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ingest_pipeline.demo.dagster_dev import choose_port, environment
from ingest_pipeline.local.server import HOST
from ingest_pipeline_tests.integration.running_demo import ROOT, RunningDemo


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_headless_ends_well_with_rows_of_the_streams_of_a_project(tmp_path: Path) -> None:
    """The other tests run the demo with the shipped streams."""
    (streams, _) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "embedding.md").read_text(), re.DOTALL)
    (tmp_path / "streams_of_mine.py").write_text(streams)
    environ = {"INGEST_STREAMS": "streams_of_mine:STREAMS"}
    with RunningDemo(tmp_path, "--headless", "--seconds", "25", **environ) as demo:
        assert demo.end() == 0, demo.said
        assert demo.left() == set()
        assert "rows arrived in every table" in demo.said
        assert re.search(r"^orders: [1-9][\d,]* rows, .* that orders_sensor launched$", demo.said, re.M)
        assert "price" not in demo.said
    written = (tmp_path / ".demo" / "env").read_text()
    assert [line.split("=")[0] for line in written.splitlines()] == [
        "export KAFKA_BOOTSTRAP_SERVERS",
        "export DATABASE_URL",
        "export DAGSTER_HOME",
        "export INGEST_STREAMS",
    ]
    assert "nowhere" not in written
    assert (tmp_path / ".demo" / "env").stat().st_mode & 0o077 == 0
    assert "RUN_SUCCESS" in (tmp_path / ".demo" / "dagster.log").read_text(), "runs end in order, their batch written"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_runs_and_a_dead_code_location_lose_nothing_and_a_sigterm_in_mid_flight_leaves_nothing(
    tmp_path: Path,
) -> None:
    with RunningDemo(tmp_path, "--kill-every", "4", "--rate", "500") as demo:
        demo.wait_for("rows in every table")
        assert ingest(tmp_path, "check").returncode == 0
        (code_server,) = demo.pids("dagster api grpc")
        os.kill(code_server, signal.SIGKILL)
        demo.wait_for("Dagster's code location had died and was reloaded")
        assert demo.pids("dagster api grpc")
        second = ingest(tmp_path, "demo")
        assert second.returncode == 1
        assert second.stderr.endswith("is about to end: end it first\n")
        demo.wait_for(r"killed [1-9]")
        demo.send(signal.SIGTERM)
        assert demo.end() == 0, demo.said
        assert demo.left() == set()
        assert "Nothing lost, nothing twice." in demo.said
        assert len(re.findall(r"the broker acknowledged .*: lost 0, twice 0", demo.said)) == 2
        assert "count(distinct event_time)" in demo.said


def ingest(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """A command in a shell with the file that the demo writes."""
    words = f". .demo/env && exec {sys.executable} -m ingest_pipeline.cli.main {command}"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(["sh", "-c", words], cwd=folder, env=environ, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_interrupt_of_a_background_demo_that_starts_leaves_nothing(tmp_path: Path) -> None:
    with RunningDemo(tmp_path, "--headless", background=True) as demo:
        while not demo.pids("dagster_webserver"):
            assert demo._process.poll() is None, demo.said
            time.sleep(0.2)
        demo.send(signal.SIGINT)
        assert demo.end() == 1, demo.said
        assert demo.left() == set()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_gives_the_next_free_one(taken_port: int) -> None:
    assert taken_port < choose_port(taken_port) < taken_port + 100
    assert choose_port(0) > 0


def test_servers_of_the_environment_do_not_reach_dagster(tmp_path: Path) -> None:
    ours = {"KAFKA_SASL_MECHANISM": "PLAIN", "LEDGER_SCHEMA": "x", "DAGSTER_X": "1"}
    outer = {"PATH": "/bin", "BATCH_SIZE": "10", **ours}
    inner = environment(outer, "127.0.0.1:1", "postgresql://here/db", tmp_path)
    assert {name: inner.get(name) for name in outer} == {**outer, **dict.fromkeys(ours)}
    assert inner["DAGSTER_HOME"] == str(tmp_path)


def test_the_demo_configures_dagster_as_the_clone_does() -> None:
    clone = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    shipped = yaml.safe_load((ROOT / "ingest_pipeline" / "demo" / "dagster.yaml").read_text())
    folders = {"storage", "local_artifact_storage", "compute_logs"}
    assert shipped == {name: value for name, value in clone.items() if name not in folders}

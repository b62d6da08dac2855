"""Builds the image, starts docker-compose.yml with it, kills the code server, stops everything, and counts.

``--stand-ins`` takes images from Debian's packages where no image can be pulled.
"""

import argparse
import json
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from ingest_pipeline.local.server import HOST, free_port
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.containers import stand_ins
from ingest_pipeline_tests.containers.count import Counts
from ingest_pipeline_tests.orchestration.bench import wait_for

ROOT = Path(__file__).parents[2]
IMAGE = "ingest-pipeline:container-test"
OURS = ("migrate", "code", "webserver", "daemon", "simulator", "metrics")
STOPPED = ("simulator", "webserver", "daemon", "code")
WAIT_SECONDS = 600.0


class Compose:
    """docker-compose.yml as a project of its own, with random ports and passwords."""

    def __init__(self, folder: Path, images: dict[str, str]) -> None:
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
        override = folder / "override.yaml"
        override.write_text(yaml.safe_dump({"services": {name: {"image": image} for name, image in images.items()}}))
        ports = ("DAGSTER_PORT", "KAFKA_PORT", "POSTGRES_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
        words = ("POSTGRES_PASSWORD", "INGEST_PASSWORD", "DAGSTER_PASSWORD", "GRAFANA_PASSWORD")
        self.env = {name: str(free_port()) for name in ports} | {name: secrets.token_hex(8) for name in words}
        (folder / "env").write_text("".join(f"{name}={value}\n" for name, value in self.env.items()))
        self._command = [
            *(["docker", "compose"] if plugin else ["docker-compose"]),
            *("-p", f"ingest-{secrets.token_hex(4)}", "--env-file", str(folder / "env")),
            *("-f", str(ROOT / "docker-compose.yml"), "-f", str(override), "--project-directory", str(ROOT)),
        ]

    def __call__(self, *words: str) -> str:
        done = subprocess.run([*self._command, *words], capture_output=True, text=True, cwd=ROOT)
        if done.returncode != 0:
            raise SystemExit(f"compose {' '.join(words)} failed: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def container(self, service: str) -> str:
        return self("ps", "-a", "-q", service).strip()

    def state(self, service: str) -> dict[str, Any]:
        inspected = subprocess.run(
            ["docker", "inspect", "-f", "{{json .State}}", self.container(service)],
            capture_output=True,
            text=True,
            check=True,
        )
        state: dict[str, Any] = json.loads(inspected.stdout)
        return state

    @contextmanager
    def up(self, *services: str) -> Iterator[None]:
        """Remove everything, volumes too, at the end. After an error print the last lines of the logs."""
        try:
            self("--profile", "simulator", "up", "-d", "--no-build", *services)
            yield
        except BaseException:
            print(self("logs", "--no-color", "--tail", "30"))
            raise
        finally:
            self("--profile", "simulator", "down", "-v", "-t", "5")


def build_image(folder: Path, with_stand_ins: bool) -> None:
    """Build the image from the files that git knows."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    options: list[str] = []
    if with_stand_ins:
        lock = folder.parent / "wheels.lock"
        # Debian's Python is older than this one may be, and pip judges markers by this one.
        lock.write_text(re.sub(r" ; python_full_version < \S+", "", (ROOT / "requirements-prod.lock").read_text()))
        pip = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:", "--require-hashes"]
        subprocess.run([*pip, "-r", str(lock), "-d", str(folder / "wheels")], check=True)
        options = [
            *("--build-arg", f"BASE_IMAGE={stand_ins.NAMES['python']}"),
            *("--build-arg", "PIP_OPTIONS=--no-index --find-links=wheels"),
        ]
    build = ["docker", "build", "-q", "-f", str(folder / "deploy/Dockerfile"), "-t", IMAGE, *options, str(folder)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)


def stop(compose: Compose) -> None:
    """Stop everything, and print when each container ended."""
    began = datetime.now(UTC)
    compose("--profile", "simulator", "stop")
    seconds = (datetime.now(UTC) - began).total_seconds()
    states = {name: compose.state(name) for name in (*STOPPED, "kafka", "postgres")}
    ends = {
        name: (datetime.fromisoformat(state["FinishedAt"][:23] + "+00:00") - began).total_seconds()
        for name, state in states.items()
    }
    for name in sorted(ends, key=lambda name: ends[name]):
        print(f"  {name} ended after {ends[name]:.1f} s with exit code {states[name]['ExitCode']}")
    print(f"the stop took {seconds:.1f} s")
    # Docker kills what does not end within its stop_grace_period, and the exit code is 137 then.
    assert [states[name]["ExitCode"] for name in STOPPED] == [0] * len(STOPPED)
    assert ends["daemon"] <= ends["code"] <= min(ends["kafka"], ends["postgres"])


def story(compose: Compose) -> None:
    counts = Counts(f"{HOST}:{compose.env['KAFKA_PORT']}", compose.env)
    wait_for_rows(counts, [0] * len(STREAMS))
    print(f"rows in both tables: {counts.rows()}")
    subprocess.run(["docker", "kill", compose.container("code")], check=True, stdout=subprocess.DEVNULL)
    killed_at = counts.rows()
    compose("up", "-d", "--no-build", "code")
    wait_for_rows(counts, killed_at)
    print(f"the code server was killed: {killed_at} rows before, {counts.rows()} later")
    stop(compose)
    compose("up", "-d", "--no-build", "code", "daemon")
    wait_for("the rest", counts.complete, WAIT_SECONDS, every=1.0)
    counts.verify()


def wait_for_rows(counts: Counts, before: list[int]) -> None:
    """Wait until each table has more rows."""
    wait_for(
        "rows in both tables",
        lambda: all(rows > earlier for rows, earlier in zip(counts.rows(), before, strict=True)),
        WAIT_SECONDS,
        every=1.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stand-ins", action="store_true", help="images from Debian's packages, needs root")
    arguments = parser.parse_args()
    images = dict.fromkeys(OURS, IMAGE)
    if arguments.stand_ins:
        stand_ins.build()
        images |= {name: stand_ins.NAMES[name] for name in ("kafka", "postgres")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_image(folder / "context", arguments.stand_ins)
        compose = Compose(folder, images)
        with compose.up():
            story(compose)


if __name__ == "__main__":
    main()

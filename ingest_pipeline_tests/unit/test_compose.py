"""docker-compose.yml and the Dockerfile name existing files, modules and valid settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest_pipeline.settings import load_settings
from ingest_pipeline.streams import STREAMS

ROOT = Path(__file__).parents[2]
OURS = ("migrate", "code", "webserver", "daemon", "simulator")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return compose


def test_every_service_is_declared(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"kafka", "postgres", *OURS}


@pytest.mark.parametrize("name", OURS)
def test_services_start_after_their_dependencies(compose: dict[str, Any], name: str) -> None:
    services = compose["services"]
    for other, how in services[name]["depends_on"].items():
        if how["condition"] == "service_healthy":
            assert services[other]["healthcheck"]["test"]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert services[other]["restart"] == "no"


def test_ports_are_published_on_the_loopback_interface_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert re.fullmatch(r"[a-z/-]+:[a-z0-9.]+", service["image"])
        assert not service["image"].endswith(":latest")


@pytest.mark.parametrize("name", OURS)
def test_the_environment_is_accepted_by_the_settings(compose: dict[str, Any], name: str) -> None:
    environment = dict(compose["services"][name]["environment"])
    environment["DATABASE_URL"] = environment["DATABASE_URL"].replace("${POSTGRES_PASSWORD:-ingest}", "ingest")
    settings = load_settings([stream.name for stream in STREAMS], environment)
    assert settings.kafka["bootstrap.servers"] == "kafka:9092"


def test_volumes_are_declared(compose: dict[str, Any]) -> None:
    used = {mount.split(":")[0] for service in compose["services"].values() for mount in service.get("volumes", [])}
    assert used == set(compose["volumes"])


def test_the_dockerfile_copies_what_exists() -> None:
    for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            *sources, _target = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources), line


def test_commands_name_modules_and_files_that_exist(compose: dict[str, Any]) -> None:
    words = [word for name in OURS for word in compose["services"][name]["command"]]
    assert "ingest_pipeline.definitions" in words
    assert (ROOT / "ingest_pipeline" / "definitions.py").is_file()
    copied = (ROOT / "deploy" / "Dockerfile").read_text()
    for word in words:
        if word.startswith("/opt/dagster/"):
            assert Path(word).name in copied
    location = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())["load_from"][0]["grpc_server"]
    assert location["host"] in compose["services"]
    assert str(location["port"]) in compose["services"][location["host"]]["command"]

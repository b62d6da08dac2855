"""docker-compose.yml, the Dockerfile and the files of deploy/ name existing files, modules and valid settings."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest_pipeline.settings import load_settings
from ingest_pipeline.streams import STREAMS

ROOT = Path(__file__).parents[2]
OURS = ("migrate", "code", "webserver", "daemon", "simulator", "metrics", "worker")
VENDORS = ("kafka", "postgres", "prometheus", "grafana", "redis")
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def env_example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled(text: str, environ: dict[str, str]) -> str:
    """The text with the variables that Compose would fill in."""
    return re.sub(r"\$\{(\w+)(?::?[-?][^}]*)?\}", lambda match: environ[match[1]], text)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """As Compose reads the file with .env.example."""
    compose: dict[str, Any] = yaml.safe_load(filled((ROOT / "docker-compose.yml").read_text(), env_example()))
    return compose


def test_every_service_is_declared(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {*VENDORS, *OURS}
    profiles = {name: service["profiles"] for name, service in compose["services"].items() if "profiles" in service}
    metrics, scale = ["metrics"], ["scale"]
    assert profiles == {
        "simulator": ["simulator"],
        **{"metrics": metrics, "prometheus": metrics, "grafana": metrics},
        **{"redis": scale, "worker": scale},
    }


@pytest.mark.parametrize("name", OURS)
def test_services_start_after_their_dependencies(compose: dict[str, Any], name: str) -> None:
    services = compose["services"]
    for other, how in services[name]["depends_on"].items():
        if how["condition"] == "service_healthy":
            assert services[other]["healthcheck"]["test"]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert services[other]["restart"] == "no"


def test_servers_stop_after_the_runs_and_the_daemon_before_them(compose: dict[str, Any]) -> None:
    """Compose stops a service before the services that it depends on."""
    services = compose["services"]
    assert services["code"]["depends_on"].keys() >= {"kafka", "postgres"}
    assert "code" in services["daemon"]["depends_on"]
    assert {services[name]["stop_grace_period"] for name in OURS} == {"30s"}


def test_ports_are_published_on_the_loopback_interface_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert re.fullmatch(r"[a-z/-]+:[a-z0-9.]+", service["image"])
        assert not service["image"].endswith(":latest")


@pytest.mark.parametrize("name", ["migrate", "code", "metrics", "worker"])
def test_the_environment_is_accepted_by_the_settings(compose: dict[str, Any], name: str) -> None:
    settings = load_settings([stream.name for stream in STREAMS], compose["services"][name]["environment"])
    assert settings.kafka["bootstrap.servers"] == "kafka:9092"


def test_only_services_that_need_the_tables_have_their_password(compose: dict[str, Any]) -> None:
    having = {name for name in OURS if "DATABASE_URL" in compose["services"][name]["environment"]}
    assert having == {"migrate", "code", "metrics", "worker"}
    having = {name for name in OURS if "DAGSTER_POSTGRES_PASSWORD" in compose["services"][name]["environment"]}
    assert having == {"code", "webserver", "daemon", "worker"}


def test_no_password_is_in_the_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for line in text.splitlines():
        if "PASSWORD" in line and "healthcheck" not in line:
            assert re.search(r"\$\{\w+_PASSWORD:[?-]", line), line


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_rights_that_they_do_not_need(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"]


def test_every_service_has_a_memory_limit_and_bounded_logs(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["mem_limit"], name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name


@pytest.mark.parametrize("name", ["code", "webserver", "daemon", "simulator", "metrics", "kafka", "postgres", "redis"])
def test_lasting_services_have_a_health_check(compose: dict[str, Any], name: str) -> None:
    assert compose["services"][name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


def test_volumes_and_mounted_files_exist(compose: dict[str, Any]) -> None:
    mounts = [mount.split(":")[0] for service in compose["services"].values() for mount in service.get("volumes", [])]
    assert {mount for mount in mounts if not mount.startswith("./")} == set(compose["volumes"])
    files = [ROOT / mount for mount in mounts if mount.startswith("./")]
    assert len(files) == 6
    assert all(file.is_file() for file in files)


def test_the_roles_are_no_superusers(compose: dict[str, Any]) -> None:
    script = (ROOT / "deploy" / "postgres-init.sh").read_text()
    assert "NOSUPERUSER NOCREATEDB NOCREATEROLE" in script
    environment = compose["services"]["postgres"]["environment"]
    assert set(re.findall(r"\$(\w+_PASSWORD)", script)) == environment.keys() - {"POSTGRES_PASSWORD"}


def test_the_dockerfile_copies_what_exists() -> None:
    for line in DOCKERFILE.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            *sources, _target = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources if source != "wheels*"), line


def test_the_image_has_pinned_packages_alone_and_no_root() -> None:
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert len(installs) == 2
    assert "--require-hashes" in DOCKERFILE
    assert "--no-deps --no-index --no-build-isolation" in installs[1]
    assert re.search(r"^USER \d+:\d+$", DOCKERFILE, re.MULTILINE)
    assert 'ENTRYPOINT ["tini", "-g", "--"]' in DOCKERFILE
    assert "FROM ${BASE_IMAGE}\n" in DOCKERFILE


def test_the_production_lock_has_what_the_image_uses() -> None:
    lock = (ROOT / "requirements-prod.lock").read_text()
    for name in ("dagster-postgres", "dagster-webserver", "setuptools", "fastavro"):
        assert re.search(rf"^{name}==", lock, re.MULTILINE), name


def test_commands_name_modules_and_files_that_exist(compose: dict[str, Any]) -> None:
    words = [word for name in OURS for word in compose["services"][name]["command"]]
    assert "ingest_pipeline.definitions" in words
    assert (ROOT / "ingest_pipeline" / "definitions.py").is_file()
    for word in words:
        if word.startswith("/opt/dagster/"):
            assert Path(word).name in DOCKERFILE
    location = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())["load_from"][0]["grpc_server"]
    assert location["host"] in compose["services"]
    assert str(location["port"]) in compose["services"][location["host"]]["command"]


def test_prometheus_scrapes_the_port_of_ingest_metrics(compose: dict[str, Any]) -> None:
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text())
    assert scraped["scrape_configs"][0]["static_configs"] == [{"targets": ["metrics:9464"]}]
    assert compose["services"]["prometheus"]["volumes"][1].startswith("./deploy/prometheus-alerts.yaml")

"""The example in docs/embedding.md, as it stands: a code location, a project of `dg`, and the streams of commands."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.workspace.autodiscovery import loadable_targets_from_python_module

from ingest_pipeline.cli import main
from ingest_pipeline.core.roles import Role
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url

pytestmark = pytest.mark.empty_database

ROOT = Path(__file__).parents[2]
PLACE = "my_project.streams:STREAMS"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with the page's my_project in it."""
    page = (ROOT / "docs/embedding.md").read_text()
    streams, definitions = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    folder = tmp_path / "my_project"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "streams.py").write_text(streams)
    (folder / "definitions.py").write_text(definitions)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_project"]:
        del sys.modules[name]


def test_the_example_is_a_code_location(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(project)
    (target,) = loadable_targets_from_python_module("my_project.definitions", str(project))
    assert target.attribute == "defs"
    repository = target.target_definition.get_repository_def()
    keys = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    assert keys == {"shop/orders", "shop/kafka/orders", "revenue"}
    assert [sensor.name for sensor in repository.sensor_defs] == ["orders_sensor"]
    revenue = repository.asset_graph.get(dg.AssetKey("revenue"))
    assert revenue.parent_keys == {dg.AssetKey(["shop", "orders"])}


def test_the_commands_know_its_streams(project: Path, database_url: str) -> None:
    """In a process of their own, as the page has it: nothing but the current directory leads to my_project."""
    url = pipeline_url(database_url, STREAMS, Role.OWNER)

    def ingest(*words: str) -> subprocess.CompletedProcess[str]:
        script = Path(sys.executable).with_name("ingest")
        kafka = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
        environ = {"PATH": os.environ["PATH"], "DATABASE_URL": url, "INGEST_STREAMS": PLACE, **kafka}
        return subprocess.run([script, *words], env=environ, text=True, capture_output=True)

    migrated = ingest("migrate")
    assert (migrated.returncode, "orders" in migrated.stdout) == (0, True), migrated.stderr
    assert ingest("migrate").stdout.startswith("nothing to do")
    found = ingest("status")
    assert (found.returncode, found.stdout.startswith("orders unknown")) == (3, True), found.stderr
    assert "price" not in found.stdout
    assert found.stderr == ""  # Kafka's client logs its failed connections only on demand
    assert "Connection refused" in ingest("--traceback", "status").stderr
    (project / ".env").write_text("ORDERS_BATCH_SIZE=7")
    assert re.search(r"^ORDERS_BATCH_SIZE +7 ", ingest("settings").stdout, re.MULTILINE)


def test_the_shipped_code_location_takes_the_same(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_STREAMS", PLACE)
    monkeypatch.delitem(sys.modules, "ingest_pipeline.definitions", raising=False)
    repository = import_module("ingest_pipeline.definitions").defs.get_repository_def()
    monkeypatch.delitem(sys.modules, "ingest_pipeline.definitions")
    assert [sensor.name for sensor in repository.sensor_defs] == ["orders_sensor"]


DG_DEFINITIONS = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
DG_PYPROJECT = """
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "my_project"
"""


def make_dg_project(project: Path) -> None:
    """As `create-dagster` and the page have it."""
    package = project / "src/my_project"
    package.parent.mkdir()
    (project / "my_project").rename(package)
    (package / "defs").mkdir()
    (package / "definitions.py").rename(package / "defs/ingest.py")
    (package / "definitions.py").write_text(DG_DEFINITIONS)
    (project / "pyproject.toml").write_text(DG_PYPROJECT)


WRONG = {
    "my_project": ("INGEST_STREAMS must be module:name, such as my_project.streams:STREAMS, not 'my_project'", ""),
    "my_projekt.streams:STREAMS": ("module my_projekt is neither installed nor in the current directory", ""),
    "my_project.steams:STREAMS": ("module my_project.steams is neither installed nor in the current directory", ""),
    "my_project.streams:STREAM": ("my_project.streams has no STREAM\n", ""),
    "my_project.streams:field": ("field is a function, not a list of streams", ""),
    PLACE: ("streams.py, line 1: ModuleNotFoundError: No module named 'datetimes'", "import datetimes"),
    "my_project.streams:EVERY": ("item 1 of STREAMS is Ellipsis, not Stream(name, Struct)", "EVERY = [...]"),
}


@pytest.mark.parametrize("place", WRONG)
def test_a_wrong_value_is_a_line_and_a_hint(place: str, project: Path) -> None:
    message, text = WRONG[place]
    if text:
        (project / "my_project/streams.py").write_text(text)
    result = CliRunner().invoke(main.main, ["settings"], env={"INGEST_STREAMS": place})
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.splitlines()[-1].startswith("Hint: `ingest settings --help`")
    assert "Traceback" not in result.output

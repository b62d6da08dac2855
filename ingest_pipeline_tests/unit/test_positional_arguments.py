"""Calls of the product's own functions and classes pass at most four positional arguments."""

import ast
from collections.abc import Iterator
from pathlib import Path

import ingest_pipeline

ROOT = Path(ingest_pipeline.__file__).parent
MOST = 4


def long_calls(tree: ast.AST, own: set[str]) -> Iterator[int]:
    """The lines of calls with too many positional arguments of the functions and classes with these names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) > MOST and ast.unparse(node.func).rpartition(".")[2] in own:
            yield node.lineno


def test_no_call_has_five_positional_arguments() -> None:
    modules = {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}
    own = {
        node.name
        for tree in modules.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    assert "decide" in own
    assert {str(path): lines for path, tree in modules.items() if (lines := list(long_calls(tree, own)))} == {}


def test_a_long_call_is_found() -> None:
    tree = ast.parse("decide(1, 2, 3, 4, 5)\ndecide(1, 2, 3, 4, e=5)\nother(1, 2, 3, 4, 5)")
    assert list(long_calls(tree, {"decide"})) == [1]

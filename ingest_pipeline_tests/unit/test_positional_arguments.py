"""Calls of the product's own functions and classes pass at most four positional arguments."""

import ast
from collections.abc import Iterator
from pathlib import Path

import ingest_pipeline

ROOT = Path(ingest_pipeline.__file__).parent
MOST = 4
MODULES = {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}
OWN = {
    node.name
    for tree in MODULES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
}


def long_calls(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) > MOST and ast.unparse(node.func).rpartition(".")[2] in OWN:
            yield node.lineno


def test_no_call_has_five_positional_arguments() -> None:
    assert {str(path): lines for path, tree in MODULES.items() if (lines := list(long_calls(tree)))} == {}


def test_a_long_call_is_found() -> None:
    assert list(long_calls(ast.parse("decide(1, 2, 3, 4, 5)\ndecide(1, 2, 3, 4, e=5)\nother(1, 2, 3, 4, 5)"))) == [1]

"""A stream's definition: other for every change that may decide otherwise about a record, and equal everywhere else."""

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

SOURCE = '''
from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct, field

from ingest_pipeline import AsJson, Stream

LIMIT = 7
WORDS = {"one", "two", "three", "four"}
LEVELS = {"low": 1, "high": 2}
SHAPE = re.compile("[a-z]+")
LAST = date(2026, 1, 1)


class Colour(Enum):
    RED = 1


def helper(word: str) -> bool:
    return word in {"alpha", "beta", "gamma", "delta"} or check(word)


def check(word: str) -> bool:
    return len(word) > 2


@lru_cache
def cached(word: str) -> int:
    return 5


def made(what: int) -> Any:
    return lambda: what


class Judge:
    def judge(self, event: Event) -> bool:
        return event.count < 9000


class Inner(Struct, forbid_unknown_fields=False):
    words: list[Literal["a", "b"]] = []
    share: Annotated[float, Meta(ge=0)] = 0.5

    def __post_init__(self) -> None:
        if self.share > 0.75:
            raise ValueError("too much")


class Loop(Struct, tag="loop", omit_defaults=True):
    inner: Loop | None = None
    number: Annotated[int, Meta(lt=3)] = 0


class Base(Struct):
    def base_check(self) -> bool:
        return self.count != 4


class Event(Base, rename="camel"):
    """Words for people."""

    event_time: datetime
    count: Annotated[int, Meta(ge=1, description="told")] = 1
    word: Annotated[str, Meta(pattern="^x", max_length=8)] = "x"
    some_list: list = field(default_factory=lambda: [1])
    more: dict = field(default_factory=partial(dict, a=1))
    other: list = field(default_factory=made([3]))
    amount: Decimal = Decimal("1.5")
    frozen: frozenset = None
    inner: Inner = field(default_factory=Inner)
    loop: Annotated[Loop | None, AsJson] = None
    least: ClassVar[int] = 11

    def __post_init__(self) -> None:
        """Words for people."""
        if self.count > LIMIT or self.word in WORDS or LEVELS.get(self.word) or not self.base_check():
            raise ValueError("refused")
        if self.count < self.least or not SHAPE.match(self.word) or self.event_time.date() > LAST:
            raise ValueError("refused")
        if self.twice > 50 or Colour.RED.value == self.count or cached(self.word) or Judge().judge(self):
            raise ValueError("refused")
        if any(helper(word) for word in (self.word, "y")):
            raise ValueError("refused")

    @property
    def twice(self) -> int:
        return self.count * 2


STREAM = Stream("event", Event)
'''.replace("    frozen: frozenset = None\n", "")

MEANT = [
    ("LIMIT = 7", "LIMIT = 8"),
    ('"three", "four"}', '"three", "five"}'),
    ('"low": 1', '"low": 3'),
    ('"[a-z]+"', '"[a-y]+"'),
    ("date(2026, 1, 1)", "date(2026, 1, 2)"),
    ("RED = 1", "RED = 2"),
    ('"gamma", "delta"}', '"gamma", "epsilon"}'),
    ("len(word) > 2", "len(word) >= 2"),
    ("len(word) > 2", "len(word) > 3"),
    ("return 5", "return 6"),
    ("count < 9000", "count < 9001"),
    ("forbid_unknown_fields=False", "forbid_unknown_fields=True"),
    ('Literal["a", "b"]', 'Literal["a", "c"]'),
    ("Meta(ge=0)", "Meta(gt=0)"),
    ("share > 0.75", "share > 0.5"),
    ("= 0.5", "= 0.25"),
    ('tag="loop"', 'tag="loops"'),
    ("omit_defaults=True", "omit_defaults=False"),
    ("Meta(lt=3)", "Meta(lt=4)"),
    ("count != 4", "count != 5"),
    ('rename="camel"', 'rename="kebab"'),
    ("ge=1,", "ge=2,"),
    ('pattern="^x"', 'pattern="^y"'),
    ("max_length=8", "max_length=9"),
    ('] = "x"', '] = "z"'),
    ("lambda: [1]", "lambda: [2]"),
    ("partial(dict, a=1)", "partial(dict, a=2)"),
    ("made([3])", "made([4])"),
    ('Decimal("1.5")', 'Decimal("1.50")'),
    ("least: ClassVar[int] = 11", "least: ClassVar[int] = 12"),
    ("self.count > LIMIT", "self.count >= LIMIT"),
    ("self.count * 2", "self.count * 3"),
    ('raise ValueError("refused")\n        if self.count', "return\n        if self.count"),
]
WORDS = [
    ('"""Words for people."""', '"""Other words."""'),
    ('description="told"', 'description="told otherwise"'),
    ("import re\n", "import re\n\n\n# a comment, and lines that moved\n\n"),
    ("import re\n", "import re\nimport os\n"),
]


def definition(source: str, name: str = "definition_example") -> str:
    module: Any = types.ModuleType(name)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, "example.py", "exec"), module.__dict__)
        return str(module.STREAM.definition())
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize(("old", "new"), MEANT)
def test_what_may_decide_otherwise_is_another_definition(old: str, new: str) -> None:
    assert SOURCE.count(old) >= 1
    assert definition(SOURCE.replace(old, new, 1)) != definition(SOURCE)


@pytest.mark.parametrize(("old", "new"), WORDS)
def test_words_for_people_are_none_of_it(old: str, new: str) -> None:
    assert SOURCE.count(old) >= 1
    assert definition(SOURCE.replace(old, new)) == definition(SOURCE)


def test_it_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Hashes of str differ between these, and so do the orders of sets and the addresses of everything."""
    (tmp_path / "definition_example.py").write_text(SOURCE)
    printed = {
        subprocess.run(
            [sys.executable, *options, "-c", "import definition_example as d; print(d.STREAM.definition())"],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed, *options in (("1",), ("2",), ("3", "-X", "dev"), ("4", "-B"))
    }
    assert printed == {definition(SOURCE)}


def test_a_check_in_another_module_of_the_same_package_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
from datetime import datetime
import checks_example.words as words
from msgspec import Struct
from ingest_pipeline import Stream
class Event(Struct):
    event_time: datetime
    def __post_init__(self):
        words.check(self)
STREAM = Stream("event", Event)
"""
    definitions = set()
    for limit in (1, 2):
        package, module = types.ModuleType("checks_example"), types.ModuleType("checks_example.words")
        exec(f"def check(event):\n    return {limit}\ncheck.__module__ = 'checks_example.words'", module.__dict__)
        package.words = module  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "checks_example", package)
        monkeypatch.setitem(sys.modules, "checks_example.words", module)
        definitions.add(definition(source, "checks_example.events"))
    assert len(definitions) == 2


def test_a_mended_check_of_a_defstruct_counts_too() -> None:
    """Whatever way a Struct is made."""
    source = """
from datetime import datetime
import msgspec
from ingest_pipeline import Stream
def refuse(self):
    if self.n > 1: raise ValueError
FIELDS, CHECK = [("event_time", datetime), ("n", int)], {"__post_init__": refuse}
STREAM = Stream("s", msgspec.defstruct("S", FIELDS, namespace=CHECK, module=__name__))
"""
    assert definition(source) != definition(source.replace("> 1", "> 2"))

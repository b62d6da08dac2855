"""The `ingest …` lines of README and docs/, as words, and whether click takes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from ingest_pipeline.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")
_CALL = re.compile(r"(?:^|.*… )(?:\S*/)?ingest(?= |$)(.*)")


def blocks(text: str) -> Iterator[str]:
    """Lines of fenced and of indented blocks of shell commands."""
    for language, fenced in _FENCED.findall(text):
        yield from fenced.splitlines() if language in ("", "sh") else ()
    yield from (line.strip() for line in _FENCED.sub("", text).splitlines() if line.startswith("    "))


def inline(text: str) -> list[str]:
    """`inline` code, a line each, though it may be broken."""
    return [" ".join(found.split()) for found in _INLINE.findall(_FENCED.sub("", text))]


def calls(text: str) -> list[list[str]]:
    """What follows `ingest`; without inline code that only names a command."""
    found = [words for line in blocks(text) if (words := _words(line))]
    return found + [words for code in inline(text) if (words := _words(code)) and not is_name(words)]


def names(text: str) -> list[list[str]]:
    """Inline code that names a command and gives it nothing."""
    return [words for code in inline(text) if (words := _words(code)) and is_name(words)]


def is_name(words: list[str]) -> bool:
    try:
        command, rest = command_of(words)
    except click.UsageError:
        return False
    return not rest and command is not main


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The innermost command that the words name, and what they give it. Raises UsageError when there is none."""
    command: click.Command = main
    while isinstance(command, click.Group):
        rest = words[1:] if words[:1] == ["--traceback"] else words
        if not rest:
            return command, []
        _, found, words = command.resolve_command(click.Context(command), rest)
        assert found is not None
        command = found
    return command, words


def check(words: list[str]) -> None:
    """Raises UsageError unless the command takes all of its options and arguments."""
    command, rest = command_of(words)
    command.make_context(command.name, list(rest), click.Context(main))


def statements(text: str) -> list[str]:
    """The SQL: fenced as such, a statement each by its semicolon, and inline what begins with SELECT."""
    fenced = [
        part.strip() for language, block in _FENCED.findall(text) if language == "sql" for part in block.split(";")
    ]
    return [part for part in fenced if part] + [code for code in inline(text) if code.upper().startswith("SELECT ")]


def _words(line: str) -> list[str]:
    """None of a line that does not call ingest. Settings in front, comments and what it is piped into are left out."""
    line = re.sub(r"^(?:[A-Z_]+=\S+ )*", "", line)
    found = _CALL.match(line)
    return [] if found is None else shlex.split(re.split(r" [|;>&]", found[1])[0], comments=True)

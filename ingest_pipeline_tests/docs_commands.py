"""The `ingest …` lines of README and docs/ as words, and their check by click."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from ingest_pipeline.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")
_CALL = re.compile(r"(?:^|.*… )(?:\S*/)?ingest(?= |$)(.*)")


def blocks(text: str) -> Iterator[str]:
    """Lines of fenced and indented blocks of shell commands."""
    for language, fenced in _FENCED.findall(text):
        yield from fenced.splitlines() if language in ("", "sh") else ()
    yield from (line.strip() for line in _FENCED.sub("", text).splitlines() if line.startswith("    "))


def inline(text: str) -> list[str]:
    """`inline` code, with line breaks removed."""
    return [" ".join(code.split()) for code in _INLINE.findall(_FENCED.sub("", text))]


def calls(text: str) -> list[list[str]]:
    """The words after `ingest`. Inline code that only names a command is left out."""
    fenced = [words for line in blocks(text) if (words := _words(line))]
    return fenced + [words for code in inline(text) if (words := _words(code)) and not is_name(words)]


def names(text: str) -> list[list[str]]:
    """Inline code that names a command without arguments."""
    return [words for code in inline(text) if (words := _words(code)) and is_name(words)]


def is_name(words: list[str]) -> bool:
    try:
        command, rest = command_of(words)
    except click.UsageError:
        return False
    return not rest and command is not main


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The innermost command of the words, and its arguments. Raises UsageError without a command."""
    command: click.Command = main
    while isinstance(command, click.Group):
        rest = words[1:] if words[:1] == ["--traceback"] else words
        if not rest:
            return command, []
        _, member, words = command.resolve_command(click.Context(command), rest)
        assert member is not None
        command = member
    return command, words


def check(words: list[str]) -> None:
    """Raises UsageError unless the command accepts all options and arguments."""
    command, rest = command_of(words)
    command.make_context(command.name, list(rest), click.Context(main))


def statements(text: str) -> list[str]:
    """The statements of fenced SQL, and inline code that begins with SELECT."""
    fenced = [
        part.strip() for language, block in _FENCED.findall(text) if language == "sql" for part in block.split(";")
    ]
    return [part for part in fenced if part] + [code for code in inline(text) if code.upper().startswith("SELECT ")]


def clone_with_stream_of_readme(folder: Path) -> Path:
    """A copy of the package in the folder, whose streams.py has README's edit. Returns the folder."""
    package = folder / "ingest_pipeline"
    shutil.copytree(ROOT / "ingest_pipeline", package, ignore=shutil.ignore_patterns("__pycache__"))
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    streams = package / "streams.py"
    before, _, _ = streams.read_text().partition("STREAMS = [")
    streams.write_text(before + block)
    return folder


def _words(line: str) -> list[str]:
    """The arguments of a call of ingest, else empty. Settings in front, comments and pipes are left out."""
    line = re.sub(r"^(?:[A-Z_]+=\S+ )*", "", line)
    call = _CALL.match(line)
    return [] if call is None else shlex.split(re.split(r" [|;>&]", call[1])[0], comments=True)

"""`ingest load`: files of JSON or CSV lines into a stream's table."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import click

from ..core.errors import SettingsError
from ..core.stream import Stream
from .main import StreamName, context_of
from .progress import progress

if TYPE_CHECKING:
    from ..operations.load import Loaded

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_STDIN = "-"


@click.command()
@click.argument("stream", type=StreamName())
@click.argument("files", nargs=-1, required=True)
@click.option("--name", help="The name of the single file in the ledger. Default: its last part. Needed with -.")
def load(stream: Stream, files: tuple[str, ...], name: str | None) -> None:
    """Store the lines of files in a stream's table, as records of the topic would be: one JSON object a line, or CSV.

    gzip and zstd are unpacked. - is the standard input. A line is known by the file's name and its number, so a second
    load of a file stores nothing twice and goes on where the first one ended. Lines that cannot become a row are dead
    letters of the stream.

    Example: ingest load price 2025.ndjson.gz 2026.ndjson

    Example: zcat old.gz | ingest load price - --name old
    """
    from ..operations.load import check_loadable

    check_loadable(stream)
    names = [name or ("" if file == _STDIN else Path(file).name) for file in files]
    if not all(names) or len(set(names)) < len(names):
        raise click.UsageError(
            "every file needs a name of its own: load - and files of the same name alone, with --name"
        )
    for file, file_name in zip(files, names, strict=True):
        done = _loaded(stream, file, file_name)
        click.echo(
            f"{file_name}: {done.rows:,} stored, {done.dead_letters:,} dead letters, {done.skipped:,} skipped,"
            f" {done.before:,} loaded before"
        )


def _loaded(stream: Stream, file: str, name: str) -> Loaded:
    from ..operations.load import load_lines

    with ExitStack() as opened:
        raw = _opened(file, opened)
        size = 0 if file == _STDIN else os.fstat(raw.fileno()).st_size
        show = opened.enter_context(progress(f"loading {name} into {stream.name}"))

        def observe(loaded: Loaded) -> None:
            show(loaded.lines, raw.tell() / size if size else None)

        return load_lines(context_of(stream), name, _lines(file, raw, opened), observe)


def _opened(file: str, opened: ExitStack) -> IO[bytes]:
    if file == _STDIN:
        return io.BufferedReader(cast(io.RawIOBase, sys.stdin.buffer))
    try:
        return opened.enter_context(open(file, "rb"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from None


def _lines(file: str, raw: IO[bytes], opened: ExitStack) -> Iterator[bytes]:
    """The unpacked lines."""
    buffered = cast(io.BufferedReader, raw)
    magic = buffered.peek(len(_ZSTD))
    source: IO[bytes] = buffered
    damage: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
    if magic.startswith(_GZIP):
        source = cast(IO[bytes], opened.enter_context(gzip.GzipFile(fileobj=buffered)))
    elif magic.startswith(_ZSTD):
        try:
            from backports import zstd
        except ModuleNotFoundError:
            raise SettingsError(
                f'{file} is packed by zstd, which needs a package: pip install "ingest-pipeline[zstd]"'
            ) from None
        damage = (*damage, zstd.ZstdError)
        source = cast(IO[bytes], opened.enter_context(zstd.ZstdFile(buffered)))
    number = 0
    try:
        for line in source:
            number += 1
            yield line
    except damage as error:
        raise SettingsError(
            f"{file} cannot be read behind line {number:,} ({type(error).__name__}): it is cut or damaged"
        ) from None

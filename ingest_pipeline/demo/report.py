"""The demo's texts, and the line that changes on a terminal: welcome, numbers, and the verdict of a headless demo."""

import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ..core.stream import Stream
from ..local.postgres import binaries
from ..operations.clients import Clients
from ..operations.judgement import StreamStatus
from ..operations.names import sensor_name
from .dagster_dev import DagsterDev

_PLAIN_SECONDS = 5.0


class LiveLine:
    """Writes to standard output while entered."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._next_seconds = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, text: str) -> None:
        """Replace the text shown. Without a terminal print a line at most every 5 s."""
        if self._console.is_terminal:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif time.monotonic() >= self._next_seconds:
            self._next_seconds = time.monotonic() + _PLAIN_SECONDS
            self.say(text)

    def say(self, text: str) -> None:
        self._console.print(text)


_NEWEST = "select * from {} order by event_time desc limit 5"


def welcome(url: str, folder: Path, streams: Sequence[Stream], seconds: float) -> str:
    """How to look at the demo."""
    psql = "psql" if shutil.which("psql") else str(binaries() / "psql")
    query = _NEWEST.format(streams[0].table if streams else "temperature")
    # The command as the user called it works also where it is not on PATH.
    ingest = sys.argv[0] if Path(sys.argv[0]).name == "ingest" else "ingest"
    return "\n".join(
        [
            f"Dagster's UI  {url}  (up after {seconds:.0f} s, log: {folder / 'dagster.log'})",
            f'rows          . {folder / "env"} && {psql} "$DATABASE_URL" -c "{query}"',
            f"commands      . {folder / 'env'} && {ingest} check",
            "Ctrl-C ends it. The next start begins with empty topics and tables: the broker keeps nothing.",
        ]
    )


def rows_line(statuses: Sequence[StreamStatus]) -> str:
    """``temperature 1,234 rows, lag 5 · price 1,230 rows, lag 0 · dead letters 2``."""
    parts = [f"{status.stream} {rows(status):,} rows, lag {status.lag_words}" for status in statuses]
    return " · ".join([*parts, f"dead letters {sum(map(_dead_letters, statuses)):,}"])


def rows(status: StreamStatus) -> int:
    return sum(partition.rows for partition in status.partitions)


def arrived(
    statuses: Iterable[StreamStatus], clients: Clients, dagster: DagsterDev, streams: Iterable[Stream]
) -> tuple[str, bool]:
    """A line per stream, and whether all streams have rows from sensor-launched runs."""
    lines, all_arrived = [], True
    by_name = {status.stream: status for status in statuses}
    for stream in streams:
        status, sensor = by_name[stream.name], sensor_name(stream.job)
        launched = {run.run_id: run for run in dagster.runs_of(sensor)}
        run_ids = {position.run_id for position in clients.ledger(stream).positions().values()}
        writers = ", ".join(f"{name[:8]} ({run.status.value})" for name, run in launched.items() if name in run_ids)
        lines.append(
            f"{stream.name}: {rows(status):,} rows, {_dead_letters(status):,} dead letters,"
            f" written by {writers or 'no run'} of {len(launched)} that {sensor} launched"
        )
        all_arrived = all_arrived and rows(status) > 0 and bool(writers)
    verdict = (
        "rows arrived in every table" if all_arrived else "rows did not arrive in every table through a sensor's run"
    )
    return "\n".join([*lines, verdict]), all_arrived


def _dead_letters(status: StreamStatus) -> int:
    return sum(partition.dead_letters for partition in status.partitions)

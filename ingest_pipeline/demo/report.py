"""What the demo says: how to look at it, its numbers in a line, and the verdict of a headless one."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.stream import Stream
from ..local.postgres import binaries
from .dagster_api import DagsterApi
from .figures import StreamFigures
from .kill import STREAM_TAG

_SENSOR_TAG = "dagster/sensor_name"
_NEWEST = "select * from {} order by event_time desc limit 5"


def welcome(url: str, folder: Path, streams: Sequence[Stream], seconds: float) -> str:
    """How to look at the demo."""
    psql = "psql" if shutil.which("psql") else str(binaries() / "psql")
    table = streams[0].table if streams else "temperature"
    query = _NEWEST.format(table)
    return "\n".join(
        [
            f"Dagster's UI  {url}  (up after {seconds:.0f} s; its log is {folder / 'dagster.log'})",
            f'rows          . {folder / "env"} && {psql} "$DATABASE_URL" -c "{query}"',
            f"commands      . {folder / 'env'} && {_ingest()} check",
            "Ctrl-C ends it. The next start begins with empty topics and tables: the broker keeps nothing.",
        ]
    )


def _ingest() -> str:
    """The command as it was called, so that it is found again without being on PATH."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "ingest" else "ingest"


def rows_line(found: Mapping[str, StreamFigures], lag: Mapping[str, int]) -> str:
    """``temperature 1,234 rows, lag 5 · price 1,230 rows, lag 0 · dead letters 2``."""
    parts = [f"{name} {one.rows:,} rows, lag {lag[name]:,}" for name, one in found.items()]
    return " · ".join([*parts, f"dead letters {sum(one.dead_letters for one in found.values()):,}"])


def arrived(found: Mapping[str, StreamFigures], api: DagsterApi, streams: Sequence[Stream]) -> tuple[str, bool]:
    """A line for each stream, and whether each has rows written by a run that its sensor launched.

    Raises DagsterAway.
    """
    lines, good = [], True
    for stream in streams:
        one = found[stream.name]
        by_sensor = {
            run.run_id: run
            for run in api.runs({STREAM_TAG: stream.name})
            if run.tags.get(_SENSOR_TAG) == f"{stream.name}_sensor"
        }
        writers = sorted(one.run_ids & by_sensor.keys())
        said = ", ".join(f"{run_id[:8]} ({by_sensor[run_id].status})" for run_id in writers)
        lines.append(
            f"{stream.name}: {one.rows:,} rows, {one.dead_letters:,} dead letters,"
            f" written by {said or 'no run'} of {len(by_sensor)} that {stream.name}_sensor launched"
        )
        good = good and one.rows > 0 and bool(writers)
    verdict = "rows arrived in every table" if good else "rows did not arrive in every table through a sensor's run"
    return "\n".join([*lines, verdict]), good

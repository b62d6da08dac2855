"""SIGKILL for the run that drains, again and again, and the proof that nothing was lost or written twice."""

import time
from collections.abc import Iterable, Mapping, Sequence

from ..core.errors import IngestError
from ..core.stream import Stream
from ..local.child_process import StopSignals
from .dagster_api import DagsterApi, DagsterRun
from .dagster_dev import DagsterDev
from .display import LiveLine
from .figures import Figures, FiguresUnavailable, Proof, StreamFigures, proof_sql
from .servers import PARTITIONS
from .simulate import Tally

# The tags a run bears; orchestration/tags.py gives them.
STREAM_TAG, PID_TAG = "ingest/stream", "ingest/pid"
_DRAIN_SECONDS = 120.0
_TRY_SECONDS = 0.5


class Killer:
    """Kills one draining run every so many seconds, of each stream in turn."""

    def __init__(self, dagster: DagsterDev, streams: Sequence[Stream], every_seconds: float) -> None:
        self.killed = 0
        self._dagster, self._api = dagster, dagster.api
        self._turns = [stream.name for stream in streams]
        self._every = every_seconds
        self._due = time.monotonic() + every_seconds
        self._killed_runs: set[str] = set()

    def kill_when_due(self, found: Mapping[str, StreamFigures]) -> None:
        """Kill a run that owns positions if it is time; when none does, at the next call. Raises DagsterAway."""
        if time.monotonic() < self._due:
            return
        owning = frozenset().union(*(one.run_ids for one in found.values())) - self._killed_runs
        runs = [run for run in started_runs(self._api) if run.run_id in owning]
        for run in sorted(runs, key=lambda run: self._turn(run.tags.get(STREAM_TAG, ""))):
            if self._dagster.kill_member(int(run.tags[PID_TAG])):
                self.killed += 1
                self._killed_runs.add(run.run_id)
                name = self._turns.pop(self._turn(run.tags[STREAM_TAG]))
                self._turns.append(name)
                self._due = time.monotonic() + self._every
                return

    def _turn(self, stream: str) -> int:
        return self._turns.index(stream) if stream in self._turns else len(self._turns) - 1


def started_runs(api: DagsterApi) -> list[DagsterRun]:
    """Runs that Dagster shows as started and whose process is known. Raises DagsterAway."""
    return [run for run in api.runs(statuses=["STARTED"]) if run.tags.get(PID_TAG, "").isdigit()]


def kill_line(killed: int, tally: Tally, found: Mapping[str, StreamFigures]) -> str:
    """``killed 7 · produced 24,310 · rows 24,286 · dead letters 24 · lost 0 · twice 0``; what is still to be read
    counts as neither."""
    numbers = {
        "killed": killed,
        "produced": tally.acknowledged,
        "rows": sum(one.rows for one in found.values()),
        "dead letters": sum(one.dead_letters for one in found.values()),
        "lost": sum(one.lost for one in found.values()),
        "twice": sum(one.twice for one in found.values()),
    }
    return " · ".join(f"{name} {number:,}" for name, number in numbers.items())


def wait_until_drained(figures: Figures, killed: int, tally: Tally, live: LiveLine, stop: StopSignals) -> bool:
    """Wait, with nothing killed and nothing sent any more, until the lag is 0; False when it was not in time or a
    second signal came."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    signals = stop.count
    while time.monotonic() < deadline and stop.count <= max(1, signals):
        try:
            found = figures.look(count_events=True)
            live.show(kill_line(killed, tally, found))
            if not any(figures.lag(found, PARTITIONS).values()):
                return True
        except (IngestError, FiguresUnavailable) as error:
            live.say(str(error))
        time.sleep(_TRY_SECONDS)
    return False


def prove(figures: Figures, streams: Iterable[Stream], tally: Tally, live: LiveLine) -> bool:
    """Print the SQL that proves it with its results; whether it does. Raises FiguresUnavailable."""
    holds = True
    for stream in streams:
        count = tally.topics.get(stream.topic)
        if count is None:
            continue
        proof = figures.prove(stream, count.acknowledged, count.broken)
        live.say(f"\n{proof_sql(stream)};")
        live.say(_result(proof))
        if count.failed:
            live.say(f"  the broker refused {count.failed:,}, which count as not produced")
        holds = holds and proof.holds
    live.say("")
    live.say("Nothing lost, nothing twice." if holds else "This does not add up: see the numbers above.")
    return holds


def _result(proof: Proof) -> str:
    columns = ("rows", "events", "dead_letters", "in_both", "read")
    shown = " · ".join(f"{name} {getattr(proof, name):,}" for name in columns)
    return (
        f"  {shown}\n"
        f"  the broker acknowledged {proof.produced:,} to topic {proof.stream}, {proof.broken:,} of them broken on"
        f" purpose: lost {proof.lost:,}, twice {proof.twice:,}"
    )

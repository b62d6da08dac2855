"""SIGKILL for draining runs, again and again, and the proof of no lost and no doubled record."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence

from ..core.stream import Stream
from ..local.child_process import StopSignals
from ..operations.judgement import StreamStatus
from ..operations.status import statuses
from ..operations.stream_context import StreamContext
from ..orchestration import tags
from .dagster_dev import DagsterDev
from .proof import Counts, count, proof_sql
from .report import LiveLine
from .simulate import Tally

_DRAIN_SECONDS = 120.0
_POLL_SECONDS = 0.5


class Killer:
    """Kills a draining run every `every_seconds`, of the streams in turn."""

    def __init__(self, dagster: DagsterDev, every_seconds: float) -> None:
        self._dagster, self._every_seconds = dagster, every_seconds
        self._due = time.monotonic() + every_seconds
        self._killed_runs: set[str] = set()
        self._kills = Counter[str | None]()

    def kill_when_due(self, streams: Iterable[StreamStatus]) -> None:
        """Kill a run with partitions when the time has come. Without a run to kill the next call tries again."""
        if time.monotonic() < self._due:
            return
        owners = {partition.owner for stream in streams for partition in stream.partitions} - self._killed_runs
        runs = [run for run in self._dagster.started_runs() if run.run_id in owners and tags.drained_job(run.tags)]
        for run in sorted(runs, key=lambda run: self._kills[tags.drained_job(run.tags)]):
            if self._dagster.kill_member(int(run.tags.get(tags.PID, 0))):
                self._kills[tags.drained_job(run.tags)] += 1
                self._killed_runs.add(run.run_id)
                self._due = time.monotonic() + self._every_seconds
                return

    def line(self, tally: Tally, counts: Iterable[Counts]) -> str:
        """``killed 7 · produced 24,310 · rows 24,286 · dead letters 24 · lost 0 · twice 0``.

        Unread records count as neither lost nor twice.
        """
        counts = list(counts)
        numbers = {
            "killed": self._kills.total(),
            "produced": tally.acknowledged,
            "rows": sum(stream.rows for stream in counts),
            "dead letters": sum(stream.dead_letters for stream in counts),
            "lost": sum(stream.lost(stream.read) for stream in counts),
            "twice": sum(stream.twice for stream in counts),
        }
        return " · ".join(f"{name} {number:,}" for name, number in numbers.items())


def wait_until_drained(contexts: Sequence[StreamContext], live: LiveLine, stop: StopSignals) -> bool:
    """Wait until the lag of every stream is 0. False after 120 s, or when a second signal came."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    signals = stop.count
    while time.monotonic() < deadline and stop.count <= max(1, signals):
        streams = statuses(contexts)
        live.show(" · ".join(f"{status.stream} lag {status.lag_words}" for status in streams))
        if all(status.lag == 0 for status in streams):
            return True
        time.sleep(_POLL_SECONDS)
    return False


def prove(database_url: str, streams: Iterable[Stream], tally: Tally, live: LiveLine) -> bool:
    """Print the SQL of the proof with its results. True when every record was stored once.

    Raises:
        LocalServerError: PostgreSQL gave no answer.
    """
    is_proved = True
    for stream in streams:
        sent, counts = tally.topics[stream.topic], count(database_url, stream)
        live.say(f"\n{proof_sql(stream)};")
        live.say("  " + " · ".join(f"{name} {number:,}" for name, number in counts._asdict().items()))
        live.say(
            f"  the broker acknowledged {sent.acknowledged:,} to topic {stream.topic}, {sent.broken:,} of them broken"
            f" on purpose: lost {counts.lost(sent.acknowledged):,}, twice {counts.twice:,}"
        )
        if sent.failed:
            live.say(f"  the broker refused {sent.failed:,}, which count as not produced")
        is_proved = counts.prove(sent.acknowledged, sent.broken) and is_proved
    live.say("\nNothing lost, nothing twice." if is_proved else "\nThis does not add up: see the numbers above.")
    return is_proved

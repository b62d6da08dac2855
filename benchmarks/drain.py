"""How fast sensor-launched runs drain a backlog, and that killing them changes nothing."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev

from .system import TOPICS, System, dagster_dev, system

GIVE_UP_SECONDS = 1800.0
_POSITIONS = "SELECT coalesce(sum(next_offset), 0)::bigint FROM ingest.position"
_OWNERS = """
    SELECT DISTINCT p.run_id FROM ingest.position p
    JOIN pg_stat_activity a ON a.application_name = 'ingest ' || p.run_id"""


@dataclass(frozen=True)
class Drained:
    """One backlog drained. Rates are rows and dead letters a second, both streams together.

    Attributes:
        steady: between 10 % and 90 % of the records.
        whole: from the first committed record to the last.
    """

    records: int
    steady: float
    whole: float


@dataclass(frozen=True)
class Survived:
    """One backlog drained while its runs were killed. Nothing may be `lost` or `twice`."""

    records: int
    broken: int
    kills: int
    rows: int
    distinct: int
    dead_letters: int

    @property
    def lost(self) -> int:
        return self.records - self.distinct - self.dead_letters

    @property
    def twice(self) -> int:
        return self.rows - self.distinct


def drain(records: int, settings: dict[str, str]) -> tuple[Drained, str]:
    """Drain a backlog of so many records by sensor-launched runs, on new servers: the rates, and the versions."""
    with tempfile.TemporaryDirectory() as folder, system(Path(folder)) as running:
        produced = running.produce(records).acknowledged
        with dagster_dev(running, settings):
            samples = _watch(running, produced)
        return _rates(samples, produced), running.versions()


def survive(records: int, kills: int, seed: int, settings: dict[str, str]) -> Survived:
    """Drain a backlog while the runs that drain it are killed by `kill -9`, so many times, at random moments.

    Each kill waits until rows have been committed since the last one; the records are spread over the kills.
    """
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, system(Path(folder)) as running:
        killed, broken, produced = 0, 0, 0
        with dagster_dev(running, settings) as dagster:
            while killed < kills:
                sent = running.produce(records // kills)
                produced, broken = produced + sent.acknowledged, broken + sent.broken
                killed += _kill_owner(running, dagster, chance)
            _watch(running, produced)
        rows, distinct = _counts(running)
        letters = int(str(running.query("SELECT count(*) FROM ingest.dead_letter")[0][0]))
    return Survived(produced, broken, killed, rows, distinct, letters)


def _watch(running: System, produced: int) -> list[tuple[float, int]]:
    """(monotonic seconds, records accounted for) until all are."""
    samples: list[tuple[float, int]] = []
    deadline = time.monotonic() + GIVE_UP_SECONDS
    with psycopg.connect(running.database_url, autocommit=True) as connection:
        while not samples or samples[-1][1] < produced:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {samples[-1][1]:,} of {produced:,} records after {GIVE_UP_SECONDS:.0f} s")
            if connection.execute("SELECT to_regclass('ingest.position')").fetchall()[0][0] is not None:
                samples.append((time.monotonic(), connection.execute(_POSITIONS).fetchall()[0][0]))
            time.sleep(0.05)
    return samples


def _rates(samples: list[tuple[float, int]], produced: int) -> Drained:
    def when(share: float) -> tuple[float, int]:
        return next(sample for sample in samples if sample[1] > 0 and sample[1] >= share * produced)

    (low_at, low), (high_at, high), first, last = when(0.1), when(0.9), when(0.0), samples[-1]
    return Drained(
        records=produced,
        steady=(high - low) / (high_at - low_at),
        whole=(last[1] - first[1]) / (last[0] - first[0]),
    )


def _kill_owner(running: System, dagster: DagsterDev, chance: random.Random) -> int:
    """Wait until a run drains, let it go on for a moment, and kill it."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < deadline:
        pids = _pids_of_owners(running, dagster)
        if pids:
            time.sleep(chance.uniform(0.0, 0.6))
            victim = chance.choice(pids)
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return 1
        time.sleep(0.05)
    raise SystemExit("no run to kill")


def _pids_of_owners(running: System, dagster: DagsterDev) -> list[int]:
    """The processes behind the sessions that own positions: the run's tag ingest/pid says which."""
    if running.query("SELECT to_regclass('ingest.position')")[0][0] is None:
        return []
    owners = {row[0] for row in running.query(_OWNERS)}
    return [int(run.tags[tags.PID]) for run in dagster.runs() if run.run_id in owners and run.status == "STARTED"]


def _counts(running: System) -> tuple[int, int]:
    """(rows, distinct coordinates) over both tables."""
    key = "(kafka_incarnation, kafka_partition, kafka_offset)"
    rows = distinct = 0
    for table in TOPICS:
        found = running.query(f"SELECT count(*), count(DISTINCT {key}) FROM {table}")[0]
        rows, distinct = rows + int(str(found[0])), distinct + int(str(found[1]))
    return rows, distinct

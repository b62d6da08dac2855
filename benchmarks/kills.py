"""`kill -9` of sensor-launched runs while they drain, and what the tables hold afterwards."""

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

import click

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev

from .effort import Effort
from .system import TOPICS, System, dagster_dev

_OWNERS = """
    SELECT DISTINCT p.run_id FROM ingest.position p
    JOIN pg_stat_activity a ON a.application_name = 'ingest ' || p.run_id"""


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

    def __str__(self) -> str:
        return (
            f"{self.kills} runs killed by `kill -9` while draining {self.records:,} records, {self.broken:,} of them"
            f" broken:\n{self.distinct:,} rows, {self.dead_letters:,} dead letters, {self.lost:,} lost,"
            f" {self.twice:,} twice."
        )


def section(running: System, effort: Effort) -> str:
    survived = survive(running, effort.of(400_000), effort.of(20), seed=1)
    click.echo(str(survived))
    if survived.lost or survived.twice or survived.dead_letters != survived.broken:
        raise SystemExit("records were lost or doubled")
    return str(survived)


def survive(running: System, records: int, kills: int, seed: int) -> Survived:
    """Spread the records over the kills. Each kill waits until a run owns positions, and then for a moment."""
    chance = random.Random(seed)
    broken = produced = 0
    with dagster_dev(running, {}) as dagster, progress("kills", kills) as show:
        for number in range(kills):
            show(number)
            sent = running.produce(records // kills)
            produced, broken = produced + sent.acknowledged, broken + sent.broken
            _kill_owner(running, dagster, chance)
        wait_for_all(running, produced)
    rows, distinct = stored(running)
    letters = int(str(running.query("SELECT count(*) FROM ingest.dead_letter")[0][0]))
    return Survived(produced, broken, kills=kills, rows=rows, distinct=distinct, dead_letters=letters)


def accounted(running: System, ledger: str = "ingest") -> int:
    """Offsets below the positions, over all partitions. 0 before there is a ledger."""
    if running.query(f"SELECT to_regclass('{ledger}.position')") == [(None,)]:
        return 0
    return int(str(running.query(f"SELECT coalesce(sum(next_offset), 0)::bigint FROM {ledger}.position")[0][0]))


def wait_for_all(running: System, records: int) -> None:
    wait_for("lag 0", lambda: accounted(running) == records, 600, every=0.2)


def _kill_owner(running: System, dagster: DagsterDev, chance: random.Random) -> None:
    """Wait until a run drains, let it go on for a moment, and kill it."""
    while True:
        pids = wait_for("a run that drains", lambda: _pids_of_owners(running, dagster), 600)
        time.sleep(chance.uniform(0.0, 0.6))
        with suppress(ProcessLookupError):
            os.kill(chance.choice(pids), signal.SIGKILL)
            return


def _pids_of_owners(running: System, dagster: DagsterDev) -> list[int]:
    """The processes of the runs whose sessions own positions, by the runs' tag ingest/pid."""
    if running.query("SELECT to_regclass('ingest.position')") == [(None,)]:
        return []
    owners = {row[0] for row in running.query(_OWNERS)}
    return [int(run.tags[tags.PID]) for run in dagster.runs() if run.run_id in owners and run.status == "STARTED"]


def stored(running: System) -> tuple[int, int]:
    """(rows, distinct coordinates) over both tables."""
    key = "(kafka_incarnation, kafka_partition, kafka_offset)"
    rows = distinct = 0
    for table in TOPICS:
        counts = running.query(f"SELECT count(*), count(DISTINCT {key}) FROM {table}")[0]
        rows, distinct = rows + int(str(counts[0])), distinct + int(str(counts[1]))
    return rows, distinct

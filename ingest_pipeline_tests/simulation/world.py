"""The world that the machine's rules act on: broker, database, Dagster's runs, and product code between them.

Product code is the sensor's tick, JobRun with the drain loop, acceptance and replay, as they are shipped. The world
takes the place of their clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from types import SimpleNamespace
from typing import Any

import dagster as dg

from ingest_pipeline.core.errors import IngestError
from ingest_pipeline.core.start import StartPolicy
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.limits import letter_limits
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.sensor import sensor
from ingest_pipeline.orchestration.setbacks import backoff_seconds
from ingest_pipeline.settings import JobSettings, Settings, StreamSettings
from ingest_pipeline.testing import InlineExecutor, MemoryLedger, MemoryLedgers, MemoryTopic
from ingest_pipeline.testing.database import MemoryTable
from ingest_pipeline_tests.samples import READING
from ingest_pipeline_tests.simulation.checks import Checks
from ingest_pipeline_tests.simulation.jobs import SharedClock, watched
from ingest_pipeline_tests.simulation.model import COLDEST
from ingest_pipeline_tests.simulation.parts import (
    SimDatabase,
    SimDecoder,
    SimLedgerSession,
    SimMissingRows,
    SimSource,
    SimTopics,
    SimWritingConnection,
)
from ingest_pipeline_tests.simulation.processes import EXPECTED_ENDS, Processes
from ingest_pipeline_tests.simulation.runs import SimInstance, SimRun, work_of
from ingest_pipeline_tests.simulation.state import SharedState
from ingest_pipeline_tests.simulation.topics import TOPIC, Topics

GROUP = "ingest-reading"
MOST_STARTS = 4
"""With starts of up to 185 s: launched after 0, 30, 90 and 210 s where none was slow before."""


def changed_settings(settings: Settings, **changed: Any) -> Settings:
    """The settings with other values for the stream or its job, unvalidated."""
    own = {name: value for name, value in changed.items() if name in StreamSettings.model_fields}
    of_job = {name: value for name, value in changed.items() if name in JobSettings.model_fields}
    assert changed.keys() == own.keys() | of_job.keys()
    streams = {READING.name: settings.streams.get(READING.name, StreamSettings()).model_copy(update=own)}
    jobs = {READING.job: settings.jobs.get(READING.job, JobSettings()).model_copy(update=of_job)}
    return settings.model_copy(update={"streams": streams, "jobs": jobs})


class World(SharedState):
    """Also what operations.clients.Clients is to product code."""

    def __init__(self, settings: Settings, partitions: int = 2) -> None:
        super().__init__(settings, SharedClock())
        self.kafka = Topics(self.broker, self.model, self.count, partitions)
        self._database = SimDatabase(self)
        self.table: MemoryTable = self._database.table(READING.name)
        self._topic, self._ledger = MemoryTopic(self.broker, TOPIC), MemoryLedger(self._database, READING)
        self.checks = Checks(self, self.table)
        self.instance = SimInstance(self, self._database)
        self.processes = Processes(self, self._database, self.checks, self.instance)
        self.cursor: str | None = None
        self.mended = False
        self.start_seconds = 0.0
        self.set_strict(True)

    def process_context(self) -> StreamContext:
        """For a process that starts now. It keeps today's settings when others are deployed."""
        clients: Any = copy(self)
        return StreamContext(READING, clients)

    # --- what product code asks for ---------------------------------------------------------------------------------

    def database(self) -> SimDatabase:
        return self._database

    def ledger(self, stream: Stream) -> MemoryLedger:
        return self._ledger

    def ledgers(self, streams: Sequence[Stream]) -> MemoryLedgers:
        return MemoryLedgers(self._database, streams)

    def topic(self, stream: Stream) -> MemoryTopic:
        return self._topic

    def topics(self) -> SimTopics:
        return SimTopics(self.broker)

    def source(self, streams: Sequence[Stream], ledger_id: str) -> SimSource:
        patience = float(self.job.retry_seconds)
        source = SimSource(self.broker, self.clock, groups={TOPIC: GROUP}, ledger_id=ledger_id, retry_seconds=patience)
        source.checks, source.model = self.checks, self.model
        if (watch := watched()) is not None:
            watch.compared()  # a run has looked at the topic just before
        return source

    def writing_connection(self, run_id: str, shared: bool = False) -> SimWritingConnection:
        return SimWritingConnection(self._database, run_id)

    def ledger_session(
        self, connection: SimWritingConnection, stream: Stream, *, verify: bool = True
    ) -> SimLedgerSession:
        own = self.own
        return SimLedgerSession(connection, self.checks, stream, own.dead_letter_max_bytes, letter_limits(own))

    def executor(self) -> InlineExecutor:
        return InlineExecutor()

    def release_idle(self) -> None:
        """The world's database has no pool."""

    def missing_rows(self, stream: Stream) -> SimMissingRows:
        return SimMissingRows(self._database, self.checks, stream)

    def decoder(self, stream: Stream) -> SimDecoder:
        return SimDecoder(stream, self.own.naive_timestamps)

    def start_policy(self, stream: Stream) -> StartPolicy:
        return StartPolicy(self.own.start_from, None, GROUP)

    # --- what happens -----------------------------------------------------------------------------------------------

    def set_strict(self, strict: bool) -> None:
        """Whether the table has the constraint that refuses the coldest readings."""
        self.model.strict = strict
        self._database.check(READING.name, "above_zero_kelvin", lambda row: not strict or row[5] > COLDEST)

    def deploy(self, **changed: Any) -> None:
        """New settings; runs that are alive keep theirs."""
        self.settings = changed_settings(self.settings, **changed)

    def tick(self, seconds: float = 5.0) -> None:
        """One tick of the sensor, so long after whatever came before."""
        self.clock.advance(seconds)
        self._database.end_lingering()
        self.instance.monitor()
        lost = self.must_stand_still()
        context: Any = SimpleNamespace(instance=self.instance, cursor=self.cursor)
        try:
            result = sensor.tick(context, [self.process_context()])
        except IngestError as error:
            self._refused(error)
            return
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        if lost and result.run_requests:
            assert self.own.on_data_loss == "continue", f"a run was launched though {lost}"
        assert not (self.table.state.paused and result.run_requests), "a run was launched though the stream is paused"
        for request in result.run_requests or []:
            self._launch(request.tags)

    def _refused(self, error: IngestError) -> None:
        name = type(error).__name__
        self.count[f"tick refused: {name}"] += 1
        assert name in EXPECTED_ENDS, error
        if name in ("DataLoss", "TopicChanged"):
            assert self.checks.real_loss(self.table.positions[error.where["partition"]]), f"none is lost: {error}"

    def must_stand_still(self) -> str:
        """Why, where the stream has to wait for an operator; "" where it has not."""
        if not self._database.reachable:
            return ""
        noted = {loss.partition for loss in self._ledger.losses()}
        held = self._database.holders(READING.name, list(self.table.positions))
        for partition, at in self.table.positions.items():
            if at.topic_id != self.model.topic_id:
                return f"partition {partition} is of another topic"
            outside = not self.model.starts[partition] <= at.next_offset <= self.model.ends[partition]
            seen = partition not in held and self.kafka.answers(partition)
            if partition in noted or (outside and seen):
                return f"partition {partition} has lost records"
        return ""

    def _launch(self, found: dict[str, str]) -> None:
        now = self.clock.time()
        self._check_backoff(found, now)
        run = SimRun(f"{len(self.instance.runs) + 1:08}", found, now)
        self.instance.runs[run.run_id] = run
        run.job = self.processes.start(
            run.run_id, lambda: work_of(run, self.instance, self.process_context(), self), self.mended
        )
        if self.start_seconds:
            run.status, run.job.begins_at = dg.DagsterRunStatus.STARTING, self.clock.monotonic() + self.start_seconds
            self._check_starts(run)
        self.count["runs launched"] += 1
        if tags.SUCCESSOR in found:
            self.count[f"successors launched: {found[tags.SUCCESSOR]}"] += 1

    def _check_starts(self, run: SimRun) -> None:
        """However long starts take, few launches of a shard wait side by side for their process."""
        alike = (tags.SHARD, tags.DEFINITION)
        waiting = [
            other
            for other in self.instance.runs.values()
            if other.status is dg.DagsterRunStatus.STARTING
            and all(other.tags[name] == run.tags[name] for name in alike)
            and self.clock.monotonic() - other.job.begins_at <= 0
        ]
        self.count["slow starts"] += 1
        assert len(waiting) <= MOST_STARTS, f"{len(waiting)} runs of a shard have not started"

    def _check_backoff(self, found: dict[str, str], now: float) -> None:
        """Failures in a row of a shard under one definition, without progress or an operator's act, are waited for;
        beside a run that is alive, they are not: its successor waits for it."""
        if tags.SUCCESSOR in found:
            return
        acted = self.table.state.acted_at
        since = max([acted.timestamp() if acted else 0.0, *self.checks.moved_at.values()])
        failed = []
        for run in reversed(self.instance.runs.values()):
            if run.tags[tags.SHARD] != found[tags.SHARD] or run.end_time is None or run.end_time >= now:
                continue  # a ghost that this very tick reports failed has had its successor
            same = run.tags[tags.DEFINITION] == found[tags.DEFINITION]
            if run.status is not dg.DagsterRunStatus.FAILURE or not same or run.began_at <= since:
                break
            failed.append(run)
        if failed:
            self.count["launches after a failure"] += 1
            waited = now - (failed[0].end_time or now)
            assert waited >= backoff_seconds(len(failed)) - 1e-6, f"{waited} s after {len(failed)} failures"

    def lag(self) -> int:
        """0 when every position stands where its log ends, and every partition has one."""
        ends = {p: self.broker.log(TOPIC, p).stable_end for p in self.model.ends}
        known = self.table.positions
        return sum(abs(end - known[p].next_offset) if p in known else 1 for p, end in ends.items())

    def busy(self) -> bool:
        """Whether Dagster shows a run that has not ended."""
        return any(not run.is_finished for run in self.instance.runs.values())

    def close(self) -> None:
        self.processes.close()

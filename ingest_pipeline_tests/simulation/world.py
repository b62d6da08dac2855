"""The world that the machine's rules act on: broker, database, Dagster's runs, and product code between them.

The product code is the sensor's tick, JobRun with the drain loop, acceptance and replay, as shipped. The world takes
the place of their clients.
"""

from collections.abc import Sequence
from copy import copy
from types import SimpleNamespace
from typing import Any

import dagster as dg

from ingest_pipeline.core.errors import IngestError
from ingest_pipeline.core.rows import RecordRules
from ingest_pipeline.core.start import StartPolicy
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.limits import letter_limits, record_rules
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.sensor import sensor
from ingest_pipeline.orchestration.sensor.memory import SensorMemory
from ingest_pipeline.orchestration.setbacks import backoff_seconds
from ingest_pipeline.settings import JobSettings, Settings, StreamSettings
from ingest_pipeline.testing import MemoryLedger, MemoryLedgers, MemoryTopic
from ingest_pipeline_tests.samples import READING
from ingest_pipeline_tests.simulation.database import SimDatabase, SimWritingConnection
from ingest_pipeline_tests.simulation.jobs import SharedClock
from ingest_pipeline_tests.simulation.parts import (
    SimDecoder,
    SimExecutor,
    SimLedgerSession,
    SimMissingRows,
    SimSource,
    SimTopics,
)
from ingest_pipeline_tests.simulation.processes import EXPECTED_ENDS, Processes
from ingest_pipeline_tests.simulation.runs import QUIET, SimInstance, SimRun, work_of
from ingest_pipeline_tests.simulation.state import SharedState
from ingest_pipeline_tests.simulation.streams import NAMES, OTHER_JOB, SHARED_JOB, SimStream, declared

_OWN, _OF_JOB = StreamSettings(), JobSettings()


def changed_settings(settings: Settings, **changed: Any) -> Settings:
    """The settings with other values for all streams and jobs, unvalidated."""
    own = {name: value for name, value in changed.items() if name in StreamSettings.model_fields}
    of_job = {name: value for name, value in changed.items() if name in JobSettings.model_fields}
    assert changed.keys() == own.keys() | of_job.keys()
    jobs = (READING.job, SHARED_JOB, OTHER_JOB)
    return settings.model_copy(
        update={
            "streams": {n: settings.streams.get(n, _OWN).model_copy(update=own) for n in NAMES},
            "jobs": {job: settings.jobs.get(job, _OF_JOB).model_copy(update=of_job) for job in jobs},
        }
    )


class World(SharedState):
    """Also takes the place of operations.clients.Clients."""

    streams: dict[str, SimStream]

    def __init__(self, settings: Settings, partitions: int = 2, streams: int = 1) -> None:
        super().__init__(settings, SharedClock())
        self._database = SimDatabase(self)
        for stream in declared(streams):
            self.streams[stream.name] = SimStream(self, stream, self._database, partitions)
        self.instance = SimInstance(self, self._database)
        self.processes = Processes(self, self._database, self.instance)
        self.cursors: dict[str, str | None] = {}
        self.memories: dict[str, SensorMemory] = {}
        self.mended = False
        self.start_seconds = 0.0

    @property
    def jobs(self) -> list[str]:
        """The jobs that have streams now."""
        return sorted({stream.stream.job for stream in self.streams.values()})

    def streams_of(self, job: str) -> list[SimStream]:
        """The streams of the job, by name."""
        return [stream for _, stream in sorted(self.streams.items()) if stream.stream.job == job]

    def contexts(self, job: str) -> list[StreamContext]:
        """For a process that starts now. The process keeps today's settings when others are deployed."""
        return [self.context(stream) for stream in self.streams_of(job)]

    def context(self, stream: SimStream) -> StreamContext:
        clients: Any = copy(self)
        return StreamContext(stream.stream, clients)

    # --- what product code asks for ---------------------------------------------------------------------------------

    def database(self) -> SimDatabase:
        return self._database

    def ledger(self, stream: Stream) -> MemoryLedger:
        return self.streams[stream.name].ledger

    def ledgers(self, streams: Sequence[Stream]) -> MemoryLedgers:
        return MemoryLedgers(self._database, streams)

    def topic(self, stream: Stream) -> MemoryTopic:
        return self.streams[stream.name].topic

    def topics(self) -> SimTopics:
        return SimTopics(self.broker)

    def source(self, streams: Sequence[Stream], ledger_id: str) -> SimSource:
        groups = {stream.topic: self.group_id(stream) for stream in streams}
        return SimSource(self, groups, ledger_id, float(self.settings.for_job(streams[0].job).retry_seconds))

    def writing_connection(self, run_id: str, shared: bool = False) -> SimWritingConnection:
        return SimWritingConnection(self._database, run_id)

    def ledger_session(
        self, connection: SimWritingConnection, stream: Stream, *, verify: bool = True
    ) -> SimLedgerSession:
        own = self.settings.for_stream(stream.name)
        sim_stream = self.streams[stream.name]
        return SimLedgerSession(connection, sim_stream, own.dead_letter_max_bytes, letter_limits(own))

    def executor(self) -> SimExecutor:
        return SimExecutor()

    def release_idle(self) -> None:
        """The world's database has no pool."""

    def missing_rows(self, stream: Stream) -> SimMissingRows:
        return SimMissingRows(self._database, self.streams[stream.name])

    def decoder(self, stream: Stream) -> SimDecoder:
        return SimDecoder(READING, self.settings.for_stream(stream.name).naive_timestamps)

    def record_rules(self, stream: Stream) -> RecordRules:
        return record_rules(self.settings.for_stream(stream.name), stream, record_keys=None)

    def start_policy(self, stream: Stream) -> StartPolicy:
        return StartPolicy(self.settings.for_stream(stream.name).start_from, None, self.group_id(stream))

    def group_id(self, stream: Stream) -> str:
        return f"ingest-{stream.name}"

    # --- what happens -----------------------------------------------------------------------------------------------

    def deploy(self, **changed: Any) -> None:
        """New settings. Runs that are alive keep theirs."""
        self.settings = changed_settings(self.settings, **changed)
        self.memories.clear()

    def tick(self, seconds: float = 5.0) -> None:
        """One tick of every sensor, this long after the last event."""
        self.clock.advance(seconds)
        self._database.end_lingering()
        self.instance.monitor()
        for job in self.jobs:
            self._tick_job(job)

    def _tick_job(self, job: str) -> None:
        streams = self.streams_of(job)
        lost = [stream for stream in streams if stream.must_stand_still()]
        context: Any = SimpleNamespace(instance=self.instance, cursor=self.cursors.get(job), log=QUIET)
        try:
            result = sensor.tick(context, self.contexts(job), self.memories.setdefault(job, SensorMemory()))
        except IngestError as error:
            self._refused(streams[0], error)
            return
        if isinstance(result, dg.SkipReason):
            return  # the only stream waits for its topic
        self.cursors[job] = result.cursor
        ready = [
            stream
            for stream in streams
            if not (stream in lost and stream.own.on_data_loss == "stop") and not stream.table.state.paused
        ]
        assert ready or not result.run_requests, f"a run was launched, and its streams wait for an operator: {lost}"
        for request in result.run_requests or []:
            self._launch(job, request.tags)

    def _refused(self, stream: SimStream, error: IngestError) -> None:
        """A tick raises the error of a job's only stream, and what concerns all streams."""
        name = type(error).__name__
        self.count[f"tick refused: {name}"] += 1
        assert name in EXPECTED_ENDS, error
        if name in ("DataLoss", "TopicChanged"):
            position = stream.table.positions[error.where["partition"]]
            assert stream.checks.real_loss(position), f"none is lost: {error}"

    def _launch(self, job: str, run_tags: dict[str, str]) -> None:
        now = self.clock.time()
        self._check_backoff(job, run_tags, now)
        run = SimRun(f"{len(self.instance.runs) + 1:08}", tags.job_name(job), run_tags, now)
        self.instance.runs[run.run_id] = run
        run.job = self.processes.start(
            run.run_id, lambda: work_of(run, self.instance, self.contexts(job), self), self.mended
        )
        if self.start_seconds:
            run.status, run.job.begins_at = dg.DagsterRunStatus.STARTING, self.clock.monotonic() + self.start_seconds
            self._check_starts(run)
        self.count["runs launched"] += 1
        if tags.SUCCESSOR in run_tags:
            self.count[f"successors launched: {run_tags[tags.SUCCESSOR]}"] += 1

    def _check_starts(self, run: SimRun) -> None:
        """However long starts take, a shard has a single run whose process has not started."""
        waiting = [
            other
            for other in self.instance.runs.values()
            if other.status is dg.DagsterRunStatus.STARTING
            and (other.job_name, other.tags[tags.SHARD]) == (run.job_name, run.tags[tags.SHARD])
        ]
        self.count["slow starts"] += 1
        assert len(waiting) == 1, f"{len(waiting)} runs of a shard have not started"

    def _check_backoff(self, job: str, run_tags: dict[str, str], now: float) -> None:
        """A launch waits after failures in a row of a shard under one definition. The wait ends early when a stream of
        the job makes progress, when an operator acts, or when a stream had no part in the failures. A successor does
        not wait, because it is launched beside a run that is alive."""
        if tags.SUCCESSOR in run_tags:
            return
        failures = [self._failures(stream, job, run_tags, now) for stream in self.streams_of(job)]
        self.count["launches after a failure"] += all(failures)
        assert any(
            not failed or now - (failed[0].end_time or now) >= backoff_seconds(len(failed)) - 1e-6
            for failed in failures
        ), f"launched too early after {failures}"

    def _failures(self, stream: SimStream, job: str, run_tags: dict[str, str], now: float) -> list[SimRun]:
        """The failures in a row that count for the stream, newest first."""
        acted = stream.table.state.acted_at
        since = max([acted.timestamp() if acted else 0.0, *stream.checks.moved_at.values()])
        since += 1e-6  # PostgreSQL rounds times to microseconds
        failures: list[SimRun] = []
        for run in reversed(self.instance.runs.values()):
            if run.job_name != tags.job_name(job) or run.tags[tags.SHARD] != run_tags[tags.SHARD]:
                continue
            if run.end_time is None or run.end_time >= now:
                continue  # a ghost that this very tick reports failed has had its successor
            if stream.name not in (tags.failed_streams(run.tags) or [stream.name]):
                continue
            same = run.tags[tags.DEFINITION] == run_tags[tags.DEFINITION]
            if run.status is not dg.DagsterRunStatus.FAILURE or not same or run.began_at <= since:
                break
            failures.append(run)
        return failures

    def busy(self) -> bool:
        """Whether Dagster shows a run that has not ended. A job without streams has no sensor that reports ghosts."""
        job_names = [tags.job_name(job) for job in self.jobs]
        return any(not run.is_finished for run in self.instance.runs.values() if run.job_name in job_names)

    def close(self) -> None:
        self.processes.close()

"""Dagster as sensor and run see it: an instance that keeps runs, and the context of an op."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import dagster as dg

from ingest_pipeline.core.errors import TopicMissing
from ingest_pipeline.core.start import survey
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.checks import (
    ACCOUNTED,
    NO_LOSS,
    CheckResult,
    evaluated,
    judged_accounts,
    judged_missing_topic,
    judged_survey,
)
from ingest_pipeline.orchestration.run.drained_stream import DrainedStream
from ingest_pipeline.orchestration.run.job_run import JobRun
from ingest_pipeline.orchestration.run.journal import Journal
from ingest_pipeline_tests.simulation.database import SimDatabase
from ingest_pipeline_tests.simulation.jobs import Job
from ingest_pipeline_tests.simulation.state import SharedState
from ingest_pipeline_tests.simulation.watch import Watch

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
QUIET = logging.getLogger("ingest_pipeline_tests.simulation")
QUIET.propagate = False
QUIET.setLevel(logging.CRITICAL)
START_TIMEOUT_SECONDS = 180.0
"""Dagster's default of `run_monitoring.start_timeout_seconds`."""


class SimRun:
    """A run, its record and its process in one."""

    def __init__(self, run_id: str, job_name: str, run_tags: Mapping[str, str], now: float) -> None:
        self.run_id, self.job_name, self.tags = run_id, job_name, dict(run_tags)
        self.status = dg.DagsterRunStatus.QUEUED
        self.create_timestamp = datetime.fromtimestamp(now, UTC)
        self.start_time: float | None = None
        self.end_time: float | None = None
        self.stop_reason: str | None = None
        self.said = ""
        self.job: Job

    @property
    def dagster_run(self) -> SimRun:
        return self

    @property
    def began_at(self) -> float:
        return self.start_time or self.create_timestamp.timestamp()

    @property
    def is_finished(self) -> bool:
        return self.status in ENDED


class SimInstance:
    """What is asked of dagster.DagsterInstance."""

    def __init__(self, state: SharedState, database: SimDatabase) -> None:
        self._state, self._database = state, database
        self.runs: dict[str, SimRun] = {}

    def get_run_records(self, wanted: dg.RunsFilter, limit: int | None = None) -> list[SimRun]:
        """Newest first."""
        statuses, job_name = wanted.statuses or list(dg.DagsterRunStatus), wanted.job_name
        newest = (run for run in reversed(self.runs.values()) if job_name in (None, run.job_name))
        return [run for run in newest if run.status in statuses][:limit]

    def get_run_by_id(self, run_id: str) -> SimRun | None:
        return self.runs.get(run_id)

    def add_run_tags(self, run_id: str, found: Mapping[str, str]) -> None:
        self.runs[run_id].tags.update(found)

    def report_run_failed(self, run: SimRun, message: str) -> None:
        assert not run.is_finished
        assert run.job.dead or run.job.zombie or run.job.lingers or not self._database.has_session(run.run_id), message
        self._state.count["ghosts reported failed"] += 1
        self.end(run, dg.DagsterRunStatus.FAILURE)

    def report_run_canceled(self, run: SimRun, message: str) -> None:
        assert run.start_time is None and not run.is_finished, message
        self._state.count["starts canceled"] += 1
        self.end(run, dg.DagsterRunStatus.CANCELED)

    def monitor(self) -> None:
        """Dagster's run monitoring: a process that died before it reported its start is found by its time-out."""
        for run in self.runs.values():
            if run.start_time is None and run.job.dead and not run.is_finished:
                waited = self._state.clock.time() - run.create_timestamp.timestamp()
                if waited >= START_TIMEOUT_SECONDS:
                    self.end(run, dg.DagsterRunStatus.FAILURE)

    def end(self, run: SimRun, status: dg.DagsterRunStatus) -> None:
        """What is ended stays so."""
        if not run.is_finished:
            run.status, run.end_time = status, self._state.clock.time()


class SimContext:
    """What is asked of dagster.AssetExecutionContext."""

    def __init__(self, instance: SimInstance, run: SimRun) -> None:
        self.instance, self.run = instance, run
        self.log = self

    def log_event(self, event: Any) -> None:
        """Observations are for people."""

    def info(self, text: str) -> None:
        self.run.said = text

    warning = info


class SimStop:
    """orchestration.run.stop_signal.StopRequest without signals."""

    def __init__(self, run: SimRun) -> None:
        self._run = run

    def __enter__(self) -> SimStop:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was changed."""

    def reason(self) -> str | None:
        return self._run.stop_reason


def _check_results(contexts: Sequence[StreamContext]) -> dict[str, list[CheckResult]]:
    """Stream → the results of the checks that only the ports answer."""
    return {
        context.stream.name: [
            evaluated(ACCOUNTED, partial(_accounted, context)),
            evaluated(NO_LOSS, partial(_no_loss, context)),
        ]
        for context in contexts
    }


def _accounted(context: StreamContext) -> CheckResult:
    return judged_accounts(context.ledger.accounting())


def _no_loss(context: StreamContext) -> CheckResult:
    try:
        return judged_survey(context.stream.name, survey(context.topic, context.ledger))
    except TopicMissing as error:
        return judged_missing_topic(context.stream.name, error, len(context.ledger.positions()))


def work_of(run: SimRun, instance: SimInstance, stream_contexts: Sequence[StreamContext], state: SharedState) -> None:
    """A run's process from its first line to its last. Dagster notes how it ended."""
    if run.is_finished:
        return  # Dagster's own check in a process that starts late
    if not stream_contexts:
        instance.end(run, dg.DagsterRunStatus.FAILURE)  # the code location has no such job any more
        return
    run.status, run.start_time = dg.DagsterRunStatus.STARTED, state.clock.time()
    run.job.watch = Watch([state.streams[context.stream.name] for context in stream_contexts], lambda: run.job.slept)
    try:
        context: Any = SimContext(instance, run)
        journal = Journal(context, state.clock, QUIET)
        stop: Any = SimStop(run)
        shard = tags.shard_of(run.tags)
        drained = [
            DrainedStream(
                stream_context,
                dg.AssetKey(stream_context.stream.name),
                journal=journal,
                log=QUIET,
                stop=stop.reason,
                share=sorted if shard is None else partial(shard.partitions, stream_number=number),
                check_results=_check_results,
                neighbours=len(stream_contexts) - 1,
            )
            for number, stream_context in enumerate(stream_contexts)
        ]
        results = list(JobRun(context.run, drained, journal, stop).results())
    except dg.DagsterExecutionInterruptedError:
        instance.end(run, dg.DagsterRunStatus.CANCELED)
    except dg.Failure as failure:
        run.said = failure.description or ""
        instance.end(run, dg.DagsterRunStatus.FAILURE)
    else:
        instance.end(run, dg.DagsterRunStatus.SUCCESS)
        state.count["materializations"] += len(results)
    state.count[f"run ended: {run.tags[tags.ENDED]}"] += 1

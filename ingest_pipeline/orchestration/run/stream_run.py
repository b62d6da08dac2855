"""One Dagster run of one stream: clients, ownership, drain and report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from ...core.backoff import Backoff
from ...core.clock import SystemClock
from ...core.decode import JsonDecoder
from ...core.drain import Drain, RunLimits
from ...core.end_reasons import EndReason
from ...core.errors import (
    DataLoss,
    DeadLetterLimit,
    EnvironmentFault,
    IngestError,
    StopStream,
    Superseded,
    TopicChanged,
)
from ...core.ledger import Holder
from ...core.loss import as_error, unverified
from ...core.ports import Topic
from ...core.progress import Progress
from ...core.record import NextOffset, StoredPosition
from ...core.start import begin, check_identity, unanswered_words
from ...operations.limits import batch_limits, letter_limits, record_rules
from ...operations.losses import accept_unasked, consequence, loss_of
from ...operations.stream_context import StreamContext
from .. import tags
from ..checks import CheckResult, check_results
from ..patience import SUCCESSOR_SECONDS, successor_seconds
from ..view import AGE, START_GRACE_SECONDS
from .garbage_collector import paused_garbage_collector
from .journal import Journal
from .log import run_logger
from .report import Reporter, known_row_count
from .stop_signal import StopRequest

if TYPE_CHECKING:
    from ...postgres.ledger import PostgresLedger
    from ...postgres.session import PostgresLedgerSession

BEGIN_SECONDS = START_GRACE_SECONDS / 2
"""How long a starting run without a session retries during an outage. A longer retry would make it look like a dead
run."""
SURPLUS_SECONDS = 1.0
"""How long a run that is no successor tries to own its shard."""


class StreamRun:
    """Opens, owns, drains and reports one stream for the op of its asset."""

    def __init__(self, context: dg.AssetExecutionContext, stream_context: StreamContext) -> None:
        self._context, self._stream_context = context, stream_context
        self._stream, self._clients = stream_context.stream, stream_context.clients
        self._settings, self._job_settings = stream_context.settings, stream_context.job_settings
        self._run = context.run
        self._shard = tags.shard_of(self._run.tags)
        self._log = run_logger(self._clients.settings.log_format)
        self._clock = SystemClock()
        self._journal = Journal(context, self._clock, self._log)
        self._began_at = self._clock.monotonic()
        self._opening_seconds: float | None = None
        self._progress: Progress | None = None
        self._red: dict[str, CheckResult] = {}
        self._silent: list[int] = []  # by hand: partitions whose end is not known, and which are not waited for

    def results(self) -> Iterator[dg.MaterializeResult[Any]]:
        """Drain and yield the materialization. A surplus run yields none.

        Raises:
            dagster.Failure: one line that says what happened and what to do.
            DagsterExecutionInterruptedError: after Terminate, with the open batch committed and reported.
        """
        self._tag({tags.STREAM: self._stream.name, tags.PID: str(os.getpid())})
        try:
            with StopRequest(self._context.instance, self._run.run_id) as stop, ExitStack() as cleanup:
                yield from self._drain(stop, cleanup)
        except Superseded as error:
            self._tag_end(EndReason.SUPERSEDED)
            self._journal.warning(error.message)
            self._journal.finish()
        except IngestError as error:
            self._tag_end(f"failed:{type(error).__name__}")
            self._note_failure(error.message, isinstance(error, StopStream))
            self._check(error.message if isinstance(error, DeadLetterLimit) else None)
            self._journal.finish()
            raise dg.Failure(description=error.message, allow_retries=False) from None
        except Exception as error:  # a bug: it keeps its traceback
            self._tag_end(f"failed:{type(error).__name__}")
            self._note_failure(f"a bug, {type(error).__name__}: its traceback is in Dagster's log of the run", True)
            self._journal.finish()
            raise

    def _drain(self, stop: StopRequest, cleanup: ExitStack) -> Iterator[dg.MaterializeResult[Any]]:
        from ...postgres.session import PostgresLedgerSession

        ledger = self._stream_context.ledger
        topic = self._stream_context.topic
        positions, ends, seen = self._begin(topic, ledger, stop)
        partitions = list(positions) if self._shard is None else self._shard.partitions(positions)
        source = cleanup.enter_context(closing(self._clients.source(self._stream, ledger.ledger_id())))
        session = PostgresLedgerSession(
            self._clients.database(),
            self._stream,
            self._run.run_id,
            self._settings.write_method,
            self._settings.dead_letter_max_bytes,
            letter_limits(self._settings),
            self._settings.batch_size,
        )
        cleanup.callback(session.close)
        self._opening_seconds = self._clock.monotonic() - self._began_at
        others = self._own(session, partitions, stop)
        if not session.positions and self._shard is not None:
            self._end_without_ownership(others, stop)
            return
        if noted := [loss for loss in ledger.losses() if loss.partition in session.positions]:
            raise as_error(noted, self._stream.name)  # by whoever owned it while this run waited
        reporter = self._reporter(topic)
        decoder = JsonDecoder(self._stream, self._settings.naive_timestamps)
        drain = Drain(
            source,
            session,
            decode=decoder.decode,
            batch_limits=batch_limits(self._settings, self._job_settings, by_hand=self._shard is None),
            run_limits=self._limits(topic, session),
            clock=self._clock,
            stop=stop.reason,
            verify=lambda: self._verify(topic, ledger, seen),
            observe=reporter,
            rules=record_rules(self._settings, self._stream),
            decode_many=decoder.decode_many,
            waiting=_offsets(ends),
        )
        self._progress = drain.progress
        try:
            with paused_garbage_collector():
                ended = drain.run()
        except DataLoss as error:
            loss = loss_of(error, session.positions[error.where["partition"]])
            ledger.note_loss(loss)
            raise as_error([loss], self._stream.name) from error
        except TopicChanged as error:
            taken = unverified(drain.verified, drain.progress.to_offsets)
            raise TopicChanged(error.message + taken, **error.where) from error
        finally:
            reporter.log(drain.progress)  # of a commit that an error followed at once
        session.close()
        self._tag_end(ended)
        self._check()
        metadata = {**reporter.metadata(drain.progress, ended), **_owned_by(others)}
        if self._silent:
            metadata["not_drained"] = unanswered_words(self._silent)
        if ended == EndReason.TERMINATED:
            self._journal.event(dg.AssetMaterialization(self._context.asset_key, metadata=metadata))
        self._journal.finish()
        if ended == EndReason.TERMINATED:
            raise dg.DagsterExecutionInterruptedError
        yield dg.MaterializeResult(metadata=metadata)

    def _begin(
        self, topic: Topic, ledger: PostgresLedger, stop: StopRequest
    ) -> tuple[dict[int, StoredPosition], dict[int, NextOffset], int]:
        """Prepare tables and positions. Returns the positions, the topic's ends and its number of partitions.

        A server that does not answer yet, such as a new group coordinator, is asked again. A partition whose leader
        does not answer may get no position.
        """
        policy = self._clients.start_policy(self._stream)
        backoff = Backoff(self._clock, min(BEGIN_SECONDS, self._job_settings.retry_seconds), stop.reason)
        while True:
            try:
                ledger.prepare()
                self._settle_losses(topic, ledger, stop)
                seen = topic.identity().partitions
                positions = begin(
                    topic, ledger, policy=policy, stream=self._stream.name, warn=self._context.log.warning
                )
                return positions, topic.end_offsets(positions), seen
            except EnvironmentFault as fault:
                backoff.wait(fault)

    def _settle_losses(self, topic: Topic, ledger: PostgresLedger, stop: StopRequest) -> None:
        """Stop at a noted loss, or accept the loss and continue, as ON_DATA_LOSS says. Raises DataLoss."""
        if self._settings.on_data_loss == "continue":
            for accepted in accept_unasked(self._stream_context, topic, ledger, stop.reason):
                self._journal.warning(f"{accepted.loss.description}; {consequence(accepted)}")
        elif noted := ledger.losses():
            raise as_error(noted, self._stream.name)

    def _own(self, session: PostgresLedgerSession, partitions: list[int], stop: StopRequest) -> dict[int, Holder]:
        """A sensor's run owns its whole shard or nothing. A run by hand owns the free partitions."""
        if self._shard is None:
            return session.own(partitions, exact=False)
        if (why := self._run.tags.get(tags.SUCCESSOR)) is not None:
            kind = "wait" if why == AGE else "wait-now"
            seconds = successor_seconds(self._job_settings.run_max_seconds) if why == AGE else SUCCESSOR_SECONDS
            return session.own(partitions, exact=True, announce=kind, wait_seconds=seconds, stop=stop.reason)
        return session.own(partitions, exact=True, wait_seconds=SURPLUS_SECONDS, stop=stop.reason)

    def _limits(self, topic: Topic, session: PostgresLedgerSession) -> RunLimits:
        """A run by hand stops at the current end offsets."""
        job = self._job_settings
        targets = None
        if self._shard is None:
            targets = _offsets(topic.end_offsets(list(session.positions))) if session.positions else {}
            self._silent = sorted(session.positions.keys() - targets.keys())
        return RunLimits(
            max_seconds=job.run_max_seconds,
            idle_seconds=job.run_idle_seconds,
            max_batches=job.run_max_batches,
            retry_seconds=job.retry_seconds,
            targets=targets,
        )

    def _verify(self, topic: Topic, ledger: PostgresLedger, partitions: int) -> EndReason | None:
        """Check that the positions still belong to this topic. An added partition ends the run, and the next run begins
        with it."""
        identity = topic.identity()
        check_identity(identity, ledger.positions(), topic.name, self._stream.name)
        return EndReason.PARTITIONS_ADDED if identity.partitions > partitions else None

    def _reporter(self, topic: Topic) -> Reporter:
        as_materialization = self._settings.report_as == "materialization"
        return Reporter(
            self._stream.name,
            self._context.asset_key,
            dg.AssetMaterialization if as_materialization else dg.AssetObservation,
            self._journal.event,
            topic,
            self._clock,
            self._settings.report_seconds,
            self._log,
            self._checks,
            lambda: known_row_count(self._stream_context, self._log),
        )

    def _note_failure(self, why: str, stops: bool) -> None:
        """Store the failure for `ingest status`, which reports an outage of PostgreSQL itself."""
        try:
            self._stream_context.ledger.note_failure(why, stops)
        except IngestError as error:
            self._journal.warning(f"the ledger was not told why this run failed: {error.message}")

    def _check(self, limit_reached: str | None = None) -> None:
        for _ in self._checks(limit_reached):
            pass

    def _checks(self, limit_reached: str | None = None) -> Iterator[None]:
        """Evaluate the checks one by one. Dagster keeps only a check's last result in a run, so a check that failed
        once ends as failed."""
        for verdict in check_results(self._stream_context, limit_reached):
            if verdict.grave and not verdict.passed:
                self._red[verdict.name] = verdict
            elif (red := self._red.get(verdict.name)) is not None:
                verdict = replace(red, description=f"earlier in this run: {red.description}")
            self._journal.event(verdict.evaluation(self._context.asset_key))
            yield

    def _end_without_ownership(self, others: Mapping[int, Holder], stop: StopRequest) -> None:
        """End a surplus run, or a run that was stopped while it waited."""
        ended = stop.reason() or EndReason.SURPLUS
        self._tag_end(ended)
        owners = ", ".join(sorted({f"run {holder.run_id[:8]}" for holder in others.values()})) or "another run"
        self._journal.info(f"shard {self._shard} of {self._stream.name} is drained by {owners}: nothing to do here")
        self._journal.finish()
        if ended == EndReason.TERMINATED:
            raise dg.DagsterExecutionInterruptedError

    def _tag_end(self, why: str) -> None:
        """Tag the run with its end reason and its committed rows."""
        end_tags = {tags.ENDED: str(why), tags.ROWS: str(self._progress.rows if self._progress else 0)}
        if self._shard is not None and self._opening_seconds is not None:
            end_tags[tags.OPENING] = f"{self._opening_seconds:.1f}"
        self._tag(end_tags)

    def _tag(self, run_tags: Mapping[str, str]) -> None:
        """Tag the run. Several streams may share a run by hand, so each has outcome tags of its own."""
        suffix = "" if self._shard is not None else f"/{self._stream.name}"
        shown = {name + (suffix if name in (tags.ENDED, tags.ROWS) else ""): value for name, value in run_tags.items()}
        self._journal.tags(self._run.run_id, shown)


def _offsets(places: Mapping[int, NextOffset]) -> dict[int, int]:
    return {partition: place.next_offset for partition, place in places.items()}


def _owned_by(others: Mapping[int, Holder]) -> dict[str, str]:
    if not others:
        return {}
    owners = [f"partition {partition}: run {holder.run_id[:8]}" for partition, holder in sorted(others.items())]
    return {"drained_by_others": ", ".join(owners)}

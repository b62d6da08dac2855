"""One Dagster run: it opens, owns and drains the streams of a job, and reports its end."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import dagster as dg

from ...core.drain import Drain, EndReasons, RunLimits
from ...core.end_reasons import EndReason
from ...core.errors import EnvironmentFault, IngestError, NotPermitted, StopStream, Superseded, TopicMissing
from ...core.record import TopicIdentity
from .. import tags
from .drained_stream import DrainedStream
from .garbage_collector import paused_garbage_collector
from .journal import Journal
from .ownership import Owners, own, surplus_message
from .preparation import prepare
from .run_checks import RunChecks
from .stop_signal import StopRequest

if TYPE_CHECKING:
    from ...postgres.writing_connection import PostgresWritingConnection

NO_FAILURES: Mapping[str, IngestError] = MappingProxyType({})
Materializations = Generator[dg.MaterializeResult[Any], None, dict[str, IngestError]]
"""Yields materializations. Returns the errors of streams set aside: stream → error."""


class JobRun:
    """Drains streams of a job for the op of their assets.

    Args:
        streams: not empty. With several streams, a failure of one leaves the others alone.
    """

    def __init__(
        self, run: dg.DagsterRun, streams: Sequence[DrainedStream], journal: Journal, stop: StopRequest
    ) -> None:
        self._run, self._streams, self._journal, self._stop = run, streams, journal, stop
        first = streams[0].stream_context
        self._job, self._settings, self._clients = first.stream.job, first.job_settings, first.clients
        self._shared = len(streams) > 1
        self._shard = tags.shard_of(run.tags)
        self._began_at = self._clients.clock.monotonic()
        self._opening_seconds: float | None = None

    def results(self) -> Iterator[dg.MaterializeResult[Any]]:
        """Drain and yield a materialization for every drained stream, or none in a surplus run.

        Raises:
            dagster.Failure: a line with the cause and the remedy.
            DagsterExecutionInterruptedError: after Terminate, with the open batches committed and reported.
        """
        drained = {tags.DRAINS: self._job} if self._shared else {tags.STREAM: self._streams[0].name}
        self._tag({**drained, tags.PID: str(os.getpid())})
        try:
            with self._stop, ExitStack() as cleanup:
                failures = NO_FAILURES if self._has_other_definition() else (yield from self._drain(cleanup))
        except Superseded:
            self._tag_end(EndReason.SUPERSEDED)
            self._journal.finish()
        except IngestError as error:
            self._tag_end(_outcome(error))
            self._note(error)
            self._journal.finish()
            raise dg.Failure(description=error.message, allow_retries=False) from None
        except Exception as error:  # a bug: it keeps its traceback
            self._tag_end(_outcome(error))
            for stream in self._streams:
                stream.note_failure(
                    f"a bug, {type(error).__name__}: its traceback is in Dagster's log of the run", stops=True
                )
            self._journal.finish()
            raise
        else:
            if failures:
                raise dg.Failure(description=_summary(failures), allow_retries=False)

    def _drain(self, cleanup: ExitStack) -> Materializations:
        clients, by_hand = self._clients, self._shard is None
        executor = clients.executor()
        cleanup.callback(executor.shutdown, wait=False, cancel_futures=True)
        checks = RunChecks(self._streams, executor)
        early = prepare(self._streams, lambda: self._connect(cleanup), executor)
        refusals = [stream.refusal for stream in self._streams if stream.refusal is not None]
        if len(refusals) == len(self._streams):
            if not self._shared or all(isinstance(refusal, EnvironmentFault) for refusal in refusals):
                raise refusals[0]
            return self._end_refused(checks)
        ledger_id = self._streams[0].stream_context.ledger.ledger_id()
        source = clients.source([stream.stream_context.stream for stream in self._streams], ledger_id)
        cleanup.enter_context(closing(source))
        connection = early or self._connect(cleanup)
        reports = {"observe": checks.poll, "look_soon": checks.look_soon}
        lanes = [stream.connect(connection, source, by_hand, **reports) for stream in self._streams]
        others = own(self._streams, self._run, run_max_seconds=self._settings.run_max_seconds, stop=self._stop.reason)
        if self._shard is not None and not any(lane.session.positions for lane in lanes):
            refused = {
                stream.name: stream.lane.end_reason
                for stream in self._streams
                if isinstance(stream.lane.end_reason, IngestError)
            }
            if refused:
                checks.finish()
            self._end_without_ownership(self._shard, others, refused)
            return refused
        limits = self._limits()
        clients.release_idle()
        drain = Drain(
            source,
            connection,
            lanes,
            limits=limits,
            clock=clients.clock,
            stop=self._stop.reason,
            executor=executor,
            verify=self._verify,
        )
        try:
            with paused_garbage_collector():
                ended = drain.run()
        finally:
            for stream in self._streams:
                stream.log()  # of a commit that an error followed at once
        connection.close()
        failures = {
            name: reason
            for name, reason in drain.set_aside.reasons.items()
            if isinstance(reason, IngestError) and not isinstance(reason, Superseded)
        }
        for stream in self._streams:
            if stream.name in failures:
                stream.failed(failures[stream.name])  # a table that was busy to the end
        self._tag_end(_outcome(next(iter(failures.values()))) if failures else ended, failures)
        checks.finish(() if self._shared else failures)
        for stream in self._streams:
            if stream.name in failures or (self._shared and self._shard is not None and not stream.has_progress):
                continue  # what did not change is not reported
            result = stream.end(ended, others.get(stream.name, {}))
            if ended == EndReason.TERMINATED or tags.DEFER_ASSET_EVENTS in self._run.tags:
                # Dagster writes no event for the result of an interrupted op or of a run with this tag.
                self._journal.event(dg.AssetMaterialization(stream.key, metadata=result.metadata))
            else:
                yield result
        self._finish(ended)
        return failures

    def _connect(self, cleanup: ExitStack) -> PostgresWritingConnection:
        connection = self._clients.writing_connection(self._run.run_id, shared=self._shared)
        cleanup.callback(connection.close)
        self._opening_seconds = self._clients.clock.monotonic() - self._began_at
        return connection

    def _has_other_definition(self) -> bool:
        """Whether the sensor launched the run for other code or settings than the process has. The run then ends."""
        streams = [stream.stream_context.stream for stream in self._streams]
        own, launched_for = tags.definition_of_job(streams, self._clients.settings), self._run.tags.get(tags.DEFINITION)
        if self._shard is None or launched_for in (None, own):
            return False
        self._journal.warning(
            f"the run drains nothing: the sensor launched it for definition {launched_for} of "
            f"{self._job}, and the code or the settings of this worker make {own}. Reload the code "
            "location, and restart the workers with the same code and settings"
        )
        self._tag_end(EndReason.OTHER_DEFINITION)
        self._journal.finish()
        return True

    def _end_refused(self, checks: RunChecks) -> dict[str, IngestError]:
        """End a run after the refusal of all streams. Every stream notes its own error."""
        failures = {
            stream.name: stream.failed(stream.refusal) for stream in self._streams if stream.refusal is not None
        }
        checks.finish()
        self._tag_end(_outcome(next(iter(failures.values()))), failures)
        self._journal.finish()
        return failures

    def _note(self, error: IngestError) -> None:
        """Note an error that ended the run. Without an answer for one stream, PostgreSQL has none for the others."""
        if not self._shared:
            self._streams[0].failed(error)
            return
        for stream in self._streams:
            own_error = stream.refusal or error
            if not stream.note_failure(own_error.message, isinstance(own_error, StopStream)):
                break

    def _limits(self) -> RunLimits:
        """A run by hand stops at the current end offsets."""
        return RunLimits(
            max_seconds=self._settings.run_max_seconds,
            idle_seconds=self._settings.run_idle_seconds,
            max_batches=self._settings.run_max_batches,
            retry_seconds=self._settings.retry_seconds,
            targets=None if self._shard is not None else {stream.name: stream.targets() for stream in self._streams},
        )

    def _verify(self, streams: Sequence[str]) -> EndReasons:
        """Ask for all topics at once. Streams without an answer are left out."""
        by_topic = {stream.stream_context.stream.topic: stream for stream in self._streams if stream.name in streams}
        try:
            identities = self._clients.topics().identities(by_topic)
        except (EnvironmentFault, NotPermitted):
            return {}
        reasons: dict[str, EndReason | StopStream | None] = {}
        for topic, identity in identities.items():
            stream = by_topic[topic]
            if isinstance(identity, TopicIdentity):
                reasons[stream.name] = stream.reason_to_end(identity)
            elif isinstance(identity, TopicMissing):
                reasons[stream.name] = identity
        return reasons

    def _end_without_ownership(self, shard: tags.Shard, others: Owners, failures: Mapping[str, IngestError]) -> None:
        """End a surplus run, or a run stopped while waiting."""
        ended = self._stop.reason() or EndReason.SURPLUS
        self._tag_end(_outcome(next(iter(failures.values()))) if failures else ended, failures)
        self._journal.info(surplus_message(self._job, shard, others))
        self._finish(ended)

    def _finish(self, ended: EndReason) -> None:
        """Raises DagsterExecutionInterruptedError after Terminate."""
        self._journal.finish()
        if ended == EndReason.TERMINATED:
            raise dg.DagsterExecutionInterruptedError

    def _tag_end(self, why: str, failures: Mapping[str, IngestError] = NO_FAILURES) -> None:
        """Tag the run with its end reason and its committed rows."""
        if self._shard is None:
            for stream in self._streams:  # several streams may share a run by hand, so each has an outcome
                own = _outcome(failures[stream.name]) if stream.name in failures else str(why)
                self._tag({f"{tags.ENDED}/{stream.name}": own, f"{tags.ROWS}/{stream.name}": str(stream.rows)})
            return
        end_tags = {tags.ENDED: str(why), tags.ROWS: str(sum(stream.rows for stream in self._streams))}
        if failures:
            end_tags[tags.FAILED_STREAMS] = ",".join(failures)
        if self._opening_seconds is not None:
            end_tags[tags.OPENING] = f"{self._opening_seconds:.1f}"
        self._tag(end_tags)

    def _tag(self, run_tags: Mapping[str, str]) -> None:
        self._journal.tags(self._run.run_id, run_tags)


def _outcome(error: Exception) -> str:
    """The value of the tag for a failure."""
    return f"failed:{type(error).__name__}"


def _summary(failures: Mapping[str, IngestError]) -> str:
    """The first failure, and the names of some other failed streams."""
    first, *others = failures
    more = f" (and {len(others)} more streams: {', '.join(others[:5])})" if others else ""
    return failures[first].message + more

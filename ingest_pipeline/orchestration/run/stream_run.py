"""One Dagster run of one stream: its ownership, its drain and its end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import dagster as dg

from ...core.drain import Drain, RunLimits
from ...core.end_reasons import EndReason
from ...core.errors import DataLoss, DeadLetterLimit, IngestError, StopStream, Superseded, TopicChanged
from ...core.ledger import Holder
from ...core.loss import unverified
from ...core.ports import LedgerSession
from ...core.progress import Progress
from ...core.record import NextOffset
from ...core.start import unanswered_words
from ...operations.limits import batch_limits, record_rules
from .. import tags
from .drained_stream import DrainedStream
from .garbage_collector import paused_garbage_collector
from .journal import Journal
from .ownership import own, owners_metadata, surplus_message
from .stop_signal import StopRequest


class StreamRun:
    """Opens, owns, drains and ends a run for the op of the stream's asset."""

    def __init__(self, run: dg.DagsterRun, drained: DrainedStream, journal: Journal, stop: StopRequest) -> None:
        self._run, self._drained, self._journal, self._stop = run, drained, journal, stop
        self._settings, self._clients = drained.context.job_settings, drained.context.clients
        self._shard = tags.shard_of(run.tags)
        self._began_at = self._clients.clock.monotonic()
        self._opening_seconds: float | None = None
        self._progress: Progress | None = None

    def results(self) -> Iterator[dg.MaterializeResult[Any]]:
        """Drain and yield the materialization. A surplus run yields none.

        Raises:
            dagster.Failure: one line that says what happened and what to do.
            DagsterExecutionInterruptedError: after Terminate, with the open batch committed and reported.
        """
        self._tag({tags.STREAM: self._drained.name, tags.PID: str(os.getpid())})
        try:
            with self._stop, ExitStack() as cleanup:
                yield from self._drain(cleanup)
        except Superseded as error:
            self._tag_end(EndReason.SUPERSEDED)
            self._journal.warning(error.message)
            self._journal.finish()
        except IngestError as error:
            self._tag_end(f"failed:{type(error).__name__}")
            self._drained.note_failure(error.message, isinstance(error, StopStream))
            self._check(error.message if isinstance(error, DeadLetterLimit) else None)
            self._journal.finish()
            raise dg.Failure(description=error.message, allow_retries=False) from None
        except Exception as error:  # a bug: it keeps its traceback
            name = type(error).__name__
            self._tag_end(f"failed:{name}")
            self._drained.note_failure(f"a bug, {name}: its traceback is in Dagster's log of the run", True)
            self._journal.finish()
            raise

    def _drain(self, cleanup: ExitStack) -> Iterator[dg.MaterializeResult[Any]]:
        drained, clients, stream = self._drained, self._clients, self._drained.context.stream
        start = drained.begin(self._stop.reason)
        partitions = list(start.positions) if self._shard is None else self._shard.partitions(start.positions)
        source = cleanup.enter_context(closing(clients.source(stream, drained.context.ledger.ledger_id())))
        session = clients.ledger_session(stream, self._run.run_id)
        cleanup.callback(session.close)
        self._opening_seconds = clients.clock.monotonic() - self._began_at
        others = own(
            session, partitions, self._run, run_max_seconds=self._settings.run_max_seconds, stop=self._stop.reason
        )
        if not session.positions and self._shard is not None:
            self._end_without_ownership(self._shard, others)
            return
        drained.check_losses(session.positions)
        limits = self._limits(session)
        reporter, decoder = drained.reporter(), clients.decoder(stream)
        drain = Drain(
            source,
            session,
            decode=decoder.decode,
            batch_limits=batch_limits(drained.context.settings, self._settings, by_hand=self._shard is None),
            run_limits=limits,
            clock=clients.clock,
            stop=self._stop.reason,
            verify=partial(drained.verify, start.partition_count),
            observe=reporter,
            rules=record_rules(drained.context.settings, stream),
            decode_many=decoder.decode_many,
            waiting=_offsets(start.ends),
        )
        self._progress = drain.progress
        try:
            with paused_garbage_collector():
                ended = drain.run()
        except DataLoss as error:
            raise drained.note_loss(error, session.positions[error.where["partition"]]) from error
        except TopicChanged as error:
            taken = unverified(drain.verified, drain.progress.to_offsets)
            raise TopicChanged(error.message + taken, **error.where) from error
        finally:
            reporter.log(drain.progress)  # of a commit that an error followed at once
        session.close()
        self._tag_end(ended)
        self._check()
        metadata = {**reporter.metadata(drain.progress, ended), **owners_metadata(others)}
        if limits.targets is not None and (silent := sorted(session.positions.keys() - limits.targets.keys())):
            metadata["not_drained"] = unanswered_words(silent)
        if ended == EndReason.TERMINATED:  # Dagster takes no result of an interrupted op
            self._journal.event(dg.AssetMaterialization(drained.key, metadata=metadata))
        self._finish(ended)
        yield dg.MaterializeResult(metadata=metadata)

    def _limits(self, session: LedgerSession) -> RunLimits:
        """A run by hand stops at the current end offsets, and does not wait for a partition whose end is not known."""
        targets = None
        if self._shard is None:
            positions = session.positions
            targets = _offsets(self._drained.context.topic.end_offsets(list(positions))) if positions else {}
        return RunLimits(
            max_seconds=self._settings.run_max_seconds,
            idle_seconds=self._settings.run_idle_seconds,
            max_batches=self._settings.run_max_batches,
            retry_seconds=self._settings.retry_seconds,
            targets=targets,
        )

    def _check(self, limit_reached: str | None = None) -> None:
        for _ in self._drained.evaluate_checks(limit_reached):
            pass

    def _end_without_ownership(self, shard: tags.Shard, others: Mapping[int, Holder]) -> None:
        """End a surplus run, or a run that was stopped while it waited."""
        ended = self._stop.reason() or EndReason.SURPLUS
        self._tag_end(ended)
        self._journal.info(surplus_message(self._drained.name, shard, others))
        self._finish(ended)

    def _finish(self, ended: EndReason) -> None:
        """Raises DagsterExecutionInterruptedError after Terminate."""
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
        suffix = "" if self._shard is not None else f"/{self._drained.name}"
        shown = {name + (suffix if name in (tags.ENDED, tags.ROWS) else ""): value for name, value in run_tags.items()}
        self._journal.tags(self._run.run_id, shown)


def _offsets(next_offsets: Mapping[int, NextOffset]) -> dict[int, int]:
    return {partition: offset.next_offset for partition, offset in next_offsets.items()}

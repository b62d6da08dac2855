"""A stream drained by a run: its beginning, its losses, its reports, its checks and its failure."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import dagster as dg

from ...core.background import in_background
from ...core.backoff import Backoff
from ...core.choices import OnDataLoss, ReportAs
from ...core.end_reasons import EndReason
from ...core.errors import (
    DeadLetterLimit,
    EnvironmentFault,
    IngestError,
    StopStream,
    Superseded,
    TopicChanged,
    TopicMissing,
)
from ...core.lane import Lane, Opening
from ...core.ledger import Holder
from ...core.ledger_ports import WritingConnection
from ...core.loss import as_error
from ...core.ports import Source
from ...core.progress import Progress
from ...core.record import StoredPosition, TopicIdentity
from ...core.start import FirstLook, begin, check_identity, unanswered_words
from ...operations.limits import batch_limits
from ...operations.stream_context import StreamContext
from ..checks import CheckResult, Results, at_limit
from ..job_checks import check_results
from ..view import START_GRACE_SECONDS
from .check_news import CheckNews
from .earlier_state import EarlierState
from .journal import Journal
from .losses import explained, settle_losses
from .report import FIRST_REPORT_SECONDS, Reporter, known_row_count, owners_metadata

BEGIN_SECONDS = START_GRACE_SECONDS / 2
"""How long a starting run without a session retries during an outage. A longer retry would make it look like a dead
run."""

NOTED_SECONDS = 60.0
"""Interval for noting a lasting failure in the ledger. The note stays newer than an operator's last action."""


class DrainedStream:
    """Prepares, verifies and reports a stream of a run.

    Args:
        key: the asset of the events.
        log: the compute log.
        share: returns the run's share of the stream's partitions.
        neighbours: other streams of the run. With neighbours, the stream reports less often and only what changed, and
            all streams log about a line a second.
        last_passed: see CheckNews.
        check_results: contexts → stream → results of its checks now.

    Attributes:
        opening: what `prepare` made. None after an error, and while the stream is paused.
        report_seconds: interval of its events and of its checks.
    """

    def __init__(
        self,
        stream_context: StreamContext,
        key: dg.AssetKey,
        *,
        journal: Journal,
        log: logging.Logger,
        stop: Callable[[], str | None],
        share: Callable[[Collection[int]], list[int]],
        neighbours: int,
        last_passed: Callable[[str], bool | None] = lambda name: None,
        check_results: Callable[[Sequence[StreamContext]], Results] = check_results,
    ) -> None:
        self.stream_context, self.name, self.key = stream_context, stream_context.stream.name, key
        self._clients, self._settings = stream_context.clients, stream_context.settings
        self.opening: Opening | None = None
        self._lane: Lane | None = None
        self._journal, self._stop, self._share = journal, stop, share
        self._neighbours = neighbours
        rarer = 1 + neighbours / 10
        self.report_seconds = self._settings.report_seconds * rarer
        self.check_results, self._news = check_results, CheckNews(neighbours > 0, last_passed)
        self._earlier_state: EarlierState | None = None
        self._partition_count, self._noted_at = 0, 0.0
        self._positions: dict[int, StoredPosition] = {}
        self._failure: str | None = None
        self._limit_message: str | None = None
        self._look_soon: Callable[[], None] = lambda: None
        self.refusal: IngestError | None = None
        self._silent: list[int] = []
        self._reporter = Reporter(
            stream=stream_context.stream,
            key=key,
            event=dg.AssetMaterialization
            if self._settings.report_as == ReportAs.MATERIALIZATION
            else dg.AssetObservation,
            emit=journal.event,
            topic=stream_context.topic,
            clock=self._clients.clock,
            report_seconds=self.report_seconds,
            log=log,
            row_count=lambda: known_row_count(stream_context, log),
            log_seconds=neighbours,
            first_report_seconds=FIRST_REPORT_SECONDS * rarer,
            background=in_background,
        )

    def prepare(self, look: FirstLook | None = None, retry_seconds: float = BEGIN_SECONDS) -> None:
        """Prepare tables and positions for the beginning of a run. An error sets the stream aside, and so does a pause
        where several streams share the run."""
        try:
            self.opening = self._reopen(look, retry_seconds) if self._neighbours else self._open(look, retry_seconds)
        except IngestError as error:
            self.refusal = error

    def _open(self, look: FirstLook | None, retry_seconds: float) -> Opening:
        """A server without an answer yet, for example a new group coordinator, is asked again. A partition whose leader
        does not answer may get no position."""
        clients, topic, ledger = self._clients, self.stream_context.topic, self.stream_context.ledger
        policy = clients.start_policy(self.stream_context.stream)
        backoff = Backoff(clients.clock, min(retry_seconds, self.stream_context.job_settings.retry_seconds), self._stop)
        while True:
            try:
                if look is None:
                    ledger.prepare()
                if look is None or look.ledger.losses or self._settings.on_data_loss == OnDataLoss.CONTINUE:
                    settle_losses(self.stream_context, stop=self._stop, warn=self._journal.warning)
                identity = topic.identity() if look is None else look.identity
                self._partition_count = identity.partitions
                positions = begin(
                    topic,
                    ledger,
                    policy=policy,
                    stream=self.name,
                    identity=identity,
                    look=look,
                    warn=self._journal.warning,
                )
                if any(position.topic_id is None for position in positions.values()):
                    positions = ledger.positions()  # `begin` has stored the topic's ids
                self._positions = positions
                ends = topic.end_offsets(positions) if look is None else look.ends
                return Opening(self._share(positions), {p: end.next_offset for p, end in ends.items()})
            except EnvironmentFault as fault:
                look = None
                backoff.wait(fault)

    def _reopen(self, look: FirstLook | None = None, retry_seconds: float = BEGIN_SECONDS) -> Opening | None:
        state = self.stream_context.ledger.state() if look is None else look.ledger.state
        return None if state.paused else self._open(look, retry_seconds)

    def connect(
        self,
        connection: WritingConnection,
        source: Source,
        by_hand: bool,
        *,
        observe: Callable[[], None],
        look_soon: Callable[[], None],
    ) -> Lane:
        """Make the stream's lane on the run's connection.

        Args:
            observe: called after the stream's own reports.
            look_soon: called where several streams share the run and this one has failed. Asks for all checks.
        """
        self._look_soon = look_soon

        def observed(progress: Progress) -> None:
            self._reporter(progress)
            observe()

        self._earlier_state = EarlierState(self.stream_context, source, self._journal)
        clients, stream = self._clients, self.stream_context.stream
        decoder = clients.decoder(stream)
        self._lane = Lane(
            self.name,
            stream.topic,
            clients.ledger_session(connection, stream, verify=self.refusal is None and not self._neighbours),
            decode=decoder.decode,
            batch_limits=batch_limits(self._settings, self.stream_context.job_settings, by_hand=by_hand),
            clock=clients.clock,
            observe=observed,
            reopen=self._reopen,
            owned=self._owned,
            failed=self.failed,
            rules=clients.record_rules(stream),
            decode_many=decoder.decode_many,
        )
        if self.opening is None:
            self.lane.end_reason = EndReason.PAUSED if self.refusal is None else self.failed(self.refusal)
        return self.lane

    @property
    def lane(self) -> Lane:
        """The stream's part of the drain, after `connect`."""
        assert self._lane is not None
        return self._lane

    def begin(self) -> None:
        """Begin to read with the prepared opening, or set the stream aside for a loss."""
        assert self.opening is not None
        try:
            self.lane.opened(self.opening)
        except StopStream as error:
            self.lane.end_reason = self.failed(error)

    @property
    def has_progress(self) -> bool:
        """Whether the run has moved a position of the stream."""
        return self.lane.progress.batches > 0 or self.lane.progress.absent > 0

    @property
    def rows(self) -> int:
        """Rows that the run has stored."""
        return 0 if self._lane is None else self._lane.progress.rows

    def _owned(self) -> None:
        """Called with ownership. Raises DataLoss for a loss that an earlier owner noted while this run waited."""
        self._limit_message = None
        self._reporter.restart(first=all(p.next_offset == p.first_offset for p in self._positions.values()))
        owned = self.lane.session.positions
        if noted := [loss for loss in self.stream_context.ledger.losses() if loss.partition in owned]:
            raise as_error(noted, self.name)

    def reason_to_end(self, identity: TopicIdentity) -> EndReason | StopStream | None:
        """TopicChanged if the positions belong to another topic. An added partition opens the stream again."""
        try:
            check_identity(identity, self._positions, self.stream_context.stream.topic, self.name)
        except TopicChanged as error:
            return error
        return EndReason.PARTITIONS_ADDED if identity.partitions > self._partition_count else None

    def targets(self) -> dict[int, int]:
        """Partition → current end, for a run by hand. Partitions whose leader does not answer are left out."""
        positions, ends = list(self.lane.session.positions), {}
        with suppress(TopicMissing):  # the drain sets the stream aside
            ends = self.stream_context.topic.end_offsets(positions) if positions else {}
        self._silent = sorted(set(positions) - ends.keys())
        return {partition: end.next_offset for partition, end in ends.items()}

    def failed(self, error: IngestError) -> IngestError:
        """Note and report an error of this stream. Returns the error for the run. The same error is noted again after
        NOTED_SECONDS."""
        if isinstance(error, Superseded):
            self._journal.warning(error.message)
            return error
        self._limit_message = error.message if isinstance(error, DeadLetterLimit) else None
        if self._failure == error.message and self._clients.clock.monotonic() < self._noted_at + NOTED_SECONDS:
            return error
        if self._lane is not None:
            error = explained(error, self._lane, self.stream_context.ledger)
        self.note_failure(error.message, isinstance(error, StopStream))
        if self._neighbours:  # which do not wait while a silent server is asked about this stream
            self._look_soon()
        else:
            for result in self.check_results([self.stream_context])[self.name]:
                if (news := self.check_news(result)) is not None:
                    self.report_check(news)
        self._clients.release_idle()
        return error

    def check_news(self, result: CheckResult) -> CheckResult | None:
        """The result to report. None: nothing has changed."""
        (result,) = at_limit([result], self._limit_message)
        if self._earlier_state is not None:
            result = self._earlier_state.judged(result, self._positions, self.lane.progress.from_offsets)
        return self._news.of(result)

    def report_check(self, result: CheckResult) -> None:
        self._journal.event(result.evaluation(self.key))

    def log(self) -> None:
        self._reporter.log(self.lane.progress)

    def end(self, ended: EndReason, others: Mapping[int, Holder]) -> dg.MaterializeResult[Any]:
        metadata = {**self._reporter.metadata(self.lane.progress, ended), **owners_metadata(others)}
        if self._silent:
            metadata["not_drained"] = unanswered_words(self._silent)
        return dg.MaterializeResult(asset_key=self.key, metadata=metadata)

    def note_failure(self, why: str, stops: bool) -> bool:
        """Store the failure for `ingest status`. The command itself reports an outage of PostgreSQL. Returns whether
        the ledger answered."""
        self._failure, self._noted_at = why, self._clients.clock.monotonic()
        try:
            self.stream_context.ledger.note_failure(why, stops)
        except IngestError as error:
            self._journal.warning(f"the ledger was not told why this run failed: {error.message}")
            return False
        return True

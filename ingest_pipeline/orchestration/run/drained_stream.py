"""A stream that a run drains: its beginning, its losses, its reports, its checks and its failure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import NamedTuple

import dagster as dg

from ...core.backoff import Backoff
from ...core.choices import OnDataLoss, ReportAs
from ...core.end_reasons import EndReason
from ...core.errors import DataLoss, EnvironmentFault, IngestError, TopicChanged
from ...core.loss import as_error
from ...core.ports import Ledger, Topic
from ...core.record import NextOffset, Position, StoredPosition
from ...core.start import begin, check_identity
from ...operations.losses import accept_unasked, consequence, loss_of
from ...operations.stream_context import StreamContext
from ..checks import CheckResult, Evaluations, check_results
from ..view import START_GRACE_SECONDS
from .journal import Journal
from .report import Reporter, known_row_count

BEGIN_SECONDS = START_GRACE_SECONDS / 2
"""How long a starting run without a session retries during an outage. A longer retry would make it look like a dead
run."""


class StreamStart(NamedTuple):
    """A prepared stream.

    Attributes:
        ends: partition → end of the topic. A partition whose leader did not answer is absent.
        partition_count: number of the topic's partitions, with or without a position.
    """

    positions: dict[int, StoredPosition]
    ends: dict[int, NextOffset]
    partition_count: int


class DrainedStream:
    """Prepares, verifies and reports a stream of a run.

    Args:
        key: the asset of the events.
        log: the compute log.
        evaluations: see `check_results`.
    """

    def __init__(
        self,
        context: StreamContext,
        key: dg.AssetKey,
        journal: Journal,
        log: logging.Logger,
        evaluations: Evaluations | None = None,
    ) -> None:
        self.context, self.name, self.key = context, context.stream.name, key
        self._journal, self._log, self._evaluations = journal, log, evaluations
        self._failed_checks: dict[str, CheckResult] = {}

    def begin(self, stop: Callable[[], str | None]) -> StreamStart:
        """Prepare tables and positions.

        A server that does not answer yet, such as a new group coordinator, is asked again. A partition whose leader
        does not answer may get no position.
        """
        clients, topic, ledger = self.context.clients, self.context.topic, self.context.ledger
        policy = clients.start_policy(self.context.stream)
        backoff = Backoff(clients.clock, min(BEGIN_SECONDS, self.context.job_settings.retry_seconds), stop)
        while True:
            try:
                ledger.prepare()
                self._settle_losses(topic, ledger, stop)
                partition_count = topic.identity().partitions
                positions = begin(topic, ledger, policy=policy, stream=self.name, warn=self._journal.warning)
                return StreamStart(positions, topic.end_offsets(positions), partition_count)
            except EnvironmentFault as fault:
                backoff.wait(fault)

    def _settle_losses(self, topic: Topic, ledger: Ledger, stop: Callable[[], str | None]) -> None:
        """Stop at a noted loss, or accept the loss and continue, as ON_DATA_LOSS says. Raises DataLoss."""
        if self.context.settings.on_data_loss == OnDataLoss.CONTINUE:
            for accepted in accept_unasked(self.context, topic, ledger, stop):
                self._journal.warning(f"{accepted.loss.description}; {consequence(accepted)}")
        elif noted := ledger.losses():
            raise as_error(noted, self.name)

    def check_losses(self, partitions: Collection[int]) -> None:
        """Raises DataLoss for a loss that an earlier owner noted while this run waited."""
        if noted := [loss for loss in self.context.ledger.losses() if loss.partition in partitions]:
            raise as_error(noted, self.name)

    def note_loss(self, error: DataLoss, position: Position) -> DataLoss | TopicChanged:
        """Note a reader's loss at the position. Returns the error for the run."""
        loss = loss_of(error, position)
        self.context.ledger.note_loss(loss)
        return as_error([loss], self.name)

    def verify(self, partition_count: int) -> EndReason | None:
        """Check that the positions still belong to this topic. An added partition ends the run, and the next run begins
        with it."""
        topic, ledger = self.context.topic, self.context.ledger
        identity = topic.identity()
        check_identity(identity, ledger.positions(), topic.name, self.name)
        return EndReason.PARTITIONS_ADDED if identity.partitions > partition_count else None

    def reporter(self) -> Reporter:
        settings = self.context.settings
        return Reporter(
            self.name,
            self.key,
            dg.AssetMaterialization if settings.report_as == ReportAs.MATERIALIZATION else dg.AssetObservation,
            self._journal.event,
            self.context.topic,
            self.context.clients.clock,
            settings.report_seconds,
            self._log,
            self.evaluate_checks,
            lambda: known_row_count(self.context, self._log),
        )

    def evaluate_checks(self, limit_reached: str | None = None) -> Iterator[None]:
        """Evaluate the checks one by one. Dagster keeps only a check's last result in a run, so a check that failed
        once ends as failed.

        Args:
            limit_reached: see `check_results`.
        """
        for result in check_results(self.context, limit_reached, self._evaluations):
            if result.grave and not result.passed:
                self._failed_checks[result.name] = result
            elif (failed := self._failed_checks.get(result.name)) is not None:
                result = replace(failed, description=f"earlier in this run: {failed.description}")
            self._journal.event(result.evaluation(self.key))
            yield

    def note_failure(self, why: str, stops: bool) -> None:
        """Store the failure for `ingest status`, which reports an outage of PostgreSQL itself."""
        try:
            self.context.ledger.note_failure(why, stops)
        except IngestError as error:
            self._journal.warning(f"the ledger was not told why this run failed: {error.message}")

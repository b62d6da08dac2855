"""Asset checks evaluated by the sensor, because a lost, paused or failing stream has no run to evaluate them."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import dagster as dg

from ...core.errors import IngestError
from ...operations.stream_context import StreamContext
from ..asset_keys import asset_key
from ..checks import NO_LOSS, UNKNOWN, UP_TO_DATE, WITHIN_LIMIT, CheckResult, Results, limit_reached, newest_evaluation
from ..job_checks import check_results, newest_outcomes
from ..view import View

CHECK_SECONDS = 60.0
"""Interval of the evaluations, and for how long ticks must fail before `up_to_date` is reported as unknown."""
IDLE_SECONDS = 900.0
"""How long Dagster is not asked for the runs and the checks of an idle stream."""


class RunlessChecks:
    """Reports a stream's changed checks while no run is active.

    An unchanged failure is reported again after a newer materialization, which would hide the failure in the UI.
    Dagster keeps the results. This object only remembers times.
    """

    def __init__(self, stream_context: StreamContext) -> None:
        self._stream_context, self._key = stream_context, asset_key(stream_context)
        self._clock = stream_context.clients.clock
        self._checked_at: float | None = None
        self._failing_since: float | None = None
        self._idle_since: float | None = None

    def recently_idle(self) -> bool:
        """Whether a recent tick saw no run, no lag and no failed check."""
        return self._idle_since is not None and self._clock.monotonic() - self._idle_since < IDLE_SECONDS

    def after_tick(
        self, instance: dg.DagsterInstance, *, has_runs: bool, has_lag: bool, results: Callable[[], Results]
    ) -> None:
        """After a tick without loss, with the runs from Dagster.

        Args:
            results: of all streams, read when the first stream needs them.
        """
        self._idle_since = None
        if has_runs or not self._is_due():
            return
        outcomes = newest_outcomes(instance, [self._key])
        due = {check.name for check, passed in outcomes.items() if not passed}  # no run may follow what was mended
        if WITHIN_LIMIT in due and limit_reached(instance, self._stream_context):
            due.remove(WITHIN_LIMIT)
        if has_lag:
            due.add(UP_TO_DATE)
        if due:
            for result in results()[self._stream_context.stream.name]:
                if result.name in due:
                    self._report(instance, result)
        if not due & {UP_TO_DATE, NO_LOSS}:
            self._idle_since = self._clock.monotonic()

    def servers_answered(self) -> None:
        """Ends the series of failed ticks. The checks are due at once, because one may be reported as unknown."""
        if self._failing_since is not None:
            self._failing_since = self._checked_at = None

    def after_loss(self, instance: dg.DagsterInstance, error: IngestError) -> None:
        self._idle_since = self._checked_at = None
        self._report(instance, CheckResult(NO_LOSS, False, error.message))

    def after_failure(self, instance: dg.DagsterInstance, error: IngestError) -> None:
        """After a tick without an answer from Kafka or PostgreSQL."""
        self._idle_since = None
        now = self._clock.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= CHECK_SECONDS and self._is_due():
            self._report(instance, CheckResult(UP_TO_DATE, False, f"{UNKNOWN}: {error.message}", grave=False))

    def _is_due(self) -> bool:
        now = self._clock.monotonic()
        if self._checked_at is not None and now - self._checked_at < CHECK_SECONDS:
            return False
        self._checked_at = now
        return True

    def _report(self, instance: dg.DagsterInstance, result: CheckResult) -> None:
        before = newest_evaluation(instance, self._key, result.name)
        before_key = None if before is None else _change_key(result.name, before.passed, before.description)
        unchanged = before_key == _change_key(result.name, result.passed, result.description)
        if before is not None and unchanged and not result.passed:
            newest = instance.get_latest_materialization_event(self._key)
            unchanged = newest is None or newest.timestamp <= before.evaluated_at
        if not unchanged and not (before is None and result.passed):
            instance.report_runless_asset_event(result.evaluation(self._key))


def evaluate_checks(
    instance: dg.DagsterInstance,
    checks: Mapping[str, RunlessChecks],
    stream_contexts: Sequence[StreamContext],
    view: View,
    *,
    launches: bool,
) -> None:
    """Evaluate the checks of streams without a run. A starting run will evaluate the checks of all streams.

    Args:
        launches: whether a run starts now or waits for its turn.
    """
    results = cache(partial(check_results, stream_contexts))
    owners = {run_id for stream in view.streams for run_id in stream.owners.values()}
    starting = launches or any(run.run_id not in owners for run in view.active)
    for stream in view.streams:
        if stream.name in checks:
            has_runs, has_lag = starting or bool(stream.owners), any(stream.lag.values())
            checks[stream.name].after_tick(instance, has_runs=has_runs, has_lag=has_lag, results=results)


def _change_key(name: str, passed: bool, message: str) -> tuple[bool, str | bool]:
    """A new value makes a result news: another loss does, other figures of `up_to_date` do not."""
    return passed, message if name == NO_LOSS and not passed else message.startswith(UNKNOWN)

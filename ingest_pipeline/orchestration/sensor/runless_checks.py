"""Checks without a run: a stream that is lost, paused, backs off or cannot be asked has none to evaluate them."""

from __future__ import annotations

import time

import dagster as dg

from ...core.errors import IngestError
from ...operations.stream_context import StreamContext
from ..asset_keys import asset_key
from ..checks import NO_LOSS, UNKNOWN, UP_TO_DATE, CheckResult, Evaluation, newest_evaluation, no_loss, up_to_date

LOOK_SECONDS = 60.0
"""How often a sensor evaluates the checks, and how long its ticks fail before it says that it cannot."""
WELL_SECONDS = 900.0
"""How long Dagster is not asked again for the runs and the checks of a stream that has nothing to do."""


class RunlessChecks:
    """What one sensor reports of its stream's checks while no run is at work: a change, and again what a newer
    materialization would cover up. It remembers when it looked last and since when ticks fail; what was said is in
    Dagster."""

    def __init__(self, stream_context: StreamContext) -> None:
        self._stream_context, self._key = stream_context, asset_key(stream_context)
        self._looked_at: float | None = None
        self._failing_since: float | None = None
        self._well_at: float | None = None

    def is_well(self) -> bool:
        """Whether not long ago no run was at work, nothing was waiting, and no check of these red."""
        return self._well_at is not None and time.monotonic() - self._well_at < WELL_SECONDS

    def after(self, instance: dg.DagsterInstance, at_work: bool, waiting: bool) -> None:
        """After a tick that asked Dagster for the runs, and found no loss.

        Args:
            at_work: a run is there.
            waiting: there is lag.
        """
        self._well_at = None
        if at_work or not self._due():
            return
        was_lost, was_late = (_is_red(self._newest(instance, name)) for name in (NO_LOSS, UP_TO_DATE))
        if was_lost:  # and was accepted or dismissed since, or the topic is back: no run need come of that
            self._tell(instance, no_loss(self._stream_context))
        if waiting or was_late:
            self._tell(instance, up_to_date(self._stream_context))
        elif not was_lost:
            self._well_at = time.monotonic()

    def after_answer(self) -> None:
        """After a tick that could ask everybody."""
        self._failing_since = None

    def after_loss(self, instance: dg.DagsterInstance, error: IngestError) -> None:
        """After a tick that found one."""
        self._well_at = self._looked_at = None
        self._tell(instance, CheckResult(NO_LOSS, False, error.message))

    def after_failure(self, instance: dg.DagsterInstance, error: IngestError) -> None:
        """After a tick that could not ask everybody."""
        self._well_at = None
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= LOOK_SECONDS and self._due():
            self._tell(instance, CheckResult(UP_TO_DATE, False, f"{UNKNOWN}: {error.message}", grave=False))

    def _due(self) -> bool:
        now = time.monotonic()
        if self._looked_at is not None and now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        return True

    def _newest(self, instance: dg.DagsterInstance, name: str) -> Evaluation | None:
        return newest_evaluation(instance, self._key, name)

    def _tell(self, instance: dg.DagsterInstance, verdict: CheckResult) -> None:
        before = self._newest(instance, verdict.name)
        told = None if before is None else _sense(verdict.name, before.passed, before.said)
        known = told == _sense(verdict.name, verdict.passed, verdict.said)
        if before is not None and known and not verdict.passed:
            newest = instance.get_latest_materialization_event(self._key)
            known = newest is None or newest.timestamp <= before.at
        if not known and not (before is None and verdict.passed):
            instance.report_runless_asset_event(verdict.evaluation(self._key))


def _is_red(evaluation: Evaluation | None) -> bool:
    return evaluation is not None and not evaluation.passed


def _sense(name: str, passed: bool, said: str) -> tuple[bool, str | bool]:
    """What makes it news. The figures of `up_to_date` change at each look, and make none; another loss does."""
    return passed, said if name == NO_LOSS and not passed else said.startswith(UNKNOWN)

"""Lateness without a run: a stream that is paused, backs off or cannot be asked has no run to evaluate `up_to_date`."""

from __future__ import annotations

import time

import dagster as dg

from ..core.errors import IngestError
from ..core.stream import Stream
from .checks import UNKNOWN, UP_TO_DATE, Verdict, newest_evaluation, up_to_date
from .connections import Connections

LOOK_SECONDS = 60.0
"""How often a sensor evaluates the check, and how long its ticks fail before it says that it cannot."""
WELL_SECONDS = 300.0
"""How long Dagster is not asked again for the runs and the check of a stream that has nothing to do."""


class Lateness:
    """What one sensor reports of its stream: a change of the check, and again what a newer materialization would cover
    up. It remembers when it looked last and since when ticks fail; what was said is in Dagster."""

    def __init__(self, stream: Stream, connections: Connections, key: dg.AssetKey) -> None:
        self._stream, self._connections, self._key = stream, connections, key
        self._looked_at: float | None = None
        self._failing_since: float | None = None
        self._well_at: float | None = None

    def after(self, instance: dg.DagsterInstance, at_work: bool, waiting: bool) -> None:
        """After a tick that asked Dagster for the runs. `at_work`: one is there; `waiting`: there is lag."""
        self._well_at = None
        if at_work or not self._due():
            return
        before = newest_evaluation(instance, self._key, UP_TO_DATE)
        if waiting or (before is not None and not before.passed):
            self._tell(instance, up_to_date(self._stream, self._connections))
        else:
            self._well_at = time.monotonic()

    def is_well(self) -> bool:
        """Whether not long ago no run was at work, nothing was waiting, and the check not red."""
        return self._well_at is not None and time.monotonic() - self._well_at < WELL_SECONDS

    def after_answer(self) -> None:
        """After a tick that could ask everybody."""
        self._failing_since = None

    def after_failure(self, instance: dg.DagsterInstance, error: IngestError) -> None:
        """After a tick that could not."""
        self._well_at = None
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= LOOK_SECONDS and self._due():
            self._tell(instance, Verdict(UP_TO_DATE, False, f"{UNKNOWN}: {error.message}", grave=False))

    def _due(self) -> bool:
        now = time.monotonic()
        if self._looked_at is not None and now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        return True

    def _tell(self, instance: dg.DagsterInstance, verdict: Verdict) -> None:
        before = newest_evaluation(instance, self._key, UP_TO_DATE)
        known = before is not None and (before.passed, before.said.startswith(UNKNOWN)) == (
            verdict.passed,
            verdict.said.startswith(UNKNOWN),
        )
        if before is not None and known and not verdict.passed:
            newest = instance.get_latest_materialization_event(self._key)
            known = newest is None or newest.timestamp <= before.at
        if not known and not (before is None and verdict.passed):
            instance.report_runless_asset_event(verdict.evaluation(self._key))

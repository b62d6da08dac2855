"""Decides which results of a stream's checks a run reports."""

from collections.abc import Callable
from dataclasses import replace

from ..checks import CheckResult


class CheckNews:
    """Dagster keeps only a check's last result in a run. A single failure makes the check end as failed.

    Args:
        only_changes: leave out results with the outcome before.
        last_passed: the outcome of a check in Dagster's storage, or None without one.
    """

    def __init__(self, only_changes: bool, last_passed: Callable[[str], bool | None]) -> None:
        self._only_changes, self._last_passed = only_changes, last_passed
        self._passed: dict[str, bool | None] = {}
        self._failed: dict[str, CheckResult] = {}

    def of(self, result: CheckResult) -> CheckResult | None:
        """The result to report. None: nothing has changed."""
        name = result.name
        if result.grave and not result.passed:
            self._failed[name] = result
        elif (failed := self._failed.get(name)) is not None:
            result = replace(failed, description=f"earlier in this run: {failed.description}")
        if not self._only_changes:
            return result
        before = self._passed[name] if name in self._passed else self._last_passed(name)
        self._passed[name] = result.passed
        return None if before == result.passed else result

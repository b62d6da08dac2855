"""Signals that ask a run to commit the open batch and end."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import dagster as dg

from ...core.end_reasons import EndReason
from ..storage_errors import storage_errors


class StopRequest:
    """While entered, SIGTERM and SIGINT are only recorded. Dagster's Terminate sends SIGINT too.

    Only the main thread can set signal handlers. On any other thread, as in a test, nothing changes.
    """

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance, self._run_id = instance, run_id
        self._received = False
        self._reason: EndReason | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def reason(self) -> EndReason | None:
        """TERMINATED when Dagster is canceling the run, SIGNAL for a signal from elsewhere, None without a signal."""
        if self._received and self._reason is None:
            self._reason = EndReason.TERMINATED if self._is_canceling() else EndReason.SIGNAL
        return self._reason

    def _is_canceling(self) -> bool:
        """False also if Dagster's storage does not answer. The run ends in both cases."""
        try:
            run = self._instance.get_run_by_id(self._run_id)
        except storage_errors():
            return False
        return run is not None and run.status == dg.DagsterRunStatus.CANCELING

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self._received = True

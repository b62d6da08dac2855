"""Writes a run's events to Dagster's storage. The run goes on while this storage is full, locked or unreachable."""

import threading
from collections.abc import Callable, Mapping
from logging import Logger
from typing import Any

import dagster as dg

from ...core.ports import Clock
from ..storage_errors import storage_errors

AGAIN_SECONDS = 10.0
"""Minimum pause after a failed write. The drain waits during every attempt, so a slow attempt is followed by a pause of
three times its duration."""
FINISH_SECONDS = 30.0
"""How long an ending run tries to write the remaining entries."""
_SAID = 50
"""Maximum messages kept for a later attempt. The compute log has all messages."""


class Journal:
    """The events, tags and messages of a run. The next write repeats failed writes. Only the newest observation, and
    the newest result of every check, is kept for an asset, because the newest includes its predecessors."""

    def __init__(self, context: dg.AssetExecutionContext, clock: Clock, log: Logger) -> None:
        self._context, self._clock, self._log = context, clock, log
        self._lock = threading.RLock()  # streams that were set aside are prepared in other threads
        self._left: dict[str, Callable[[], Any]] = {}
        self._again_at = 0.0
        self._messages = 0

    def event(self, event: dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation) -> None:
        name = event.check_name if isinstance(event, dg.AssetCheckEvaluation) else "report"
        self._write(f"event {name} of {event.asset_key.to_user_string()}", lambda: self._context.log_event(event))

    def tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        instance, named = self._context.instance, dict(tags)
        self._write(f"tags {' '.join(sorted(named))}", lambda: instance.add_run_tags(run_id, named))

    def info(self, text: str) -> None:
        self._say(lambda: self._context.log.info(text))

    def warning(self, text: str) -> None:
        self._say(lambda: self._context.log.warning(text))

    def finish(self) -> None:
        """Write the remaining entries within FINISH_SECONDS. The compute log names unwritten entries."""
        deadline = self._clock.monotonic() + FINISH_SECONDS
        while self._left and self._clock.monotonic() < deadline:
            self._flush()
            if self._left:
                self._clock.sleep(1.0)
        if self._left:
            self._log.error("Dagster's storage took no write: %s not written", ", ".join(self._left))
            self._left.clear()

    def _say(self, say: Callable[[], None]) -> None:
        with self._lock:
            self._messages = (self._messages + 1) % _SAID
            self._write(f"message {self._messages}", say)

    def _write(self, what: str, write: Callable[[], Any]) -> None:
        with self._lock:
            self._left.pop(what, None)
            self._left[what] = write
            if self._clock.monotonic() >= self._again_at:
                self._flush()

    def _flush(self) -> None:
        """Write in order, up to the first failure."""
        for what, write in list(self._left.items()):
            began = self._clock.monotonic()
            try:
                write()
            except storage_errors() as error:
                now = self._clock.monotonic()
                self._again_at = now + max(AGAIN_SECONDS, 3 * (now - began))
                self._log.warning(
                    "Dagster's storage does not take %s (%s). The run goes on and tries again later",
                    what,
                    type(error).__name__,
                )
                return
            del self._left[what]

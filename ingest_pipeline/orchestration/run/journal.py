"""What a run writes to Dagster's storage. That storage may be full, locked or away while the run's own work goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from logging import Logger
from typing import Any

import dagster as dg

from ...core.ports import Clock

AGAIN_SECONDS = 10.0
"""How long nothing is tried after a write has failed, at least. A try may wait long for a lock or a connection, and the
drain waits with it, so the pause is three times as long as the try."""
FINISH_SECONDS = 30.0
"""How long the end of a run tries to write what is left."""
_SAID = 50
"""Messages that are kept for a later try. The compute log has all of them."""


_OF_PACKAGES = (
    ("sqlalchemy", "exc", "DBAPIError"),
    ("sqlalchemy", "exc", "TimeoutError"),
    ("dagster_postgres", "utils", "DagsterPostgresException"),
    ("dagster_mysql", "utils", "DagsterMySQLException"),
)
"""What Dagster's storages raise where their database does not take a write or does not answer. The last two follow
the storage's own tries to connect."""


@cache
def storage_errors() -> tuple[type[Exception], ...]:
    """The exceptions of Dagster's storages and of a disk. The packages are imported when a run needs them."""
    found = [
        getattr(import_module(f"{package}.{module}"), name)
        for package, module, name in _OF_PACKAGES
        if find_spec(package) is not None
    ]
    return (sqlite3.Error, OSError, *found)


class Journal:
    """A run's events, tags and messages. What cannot be written is kept and tried again with the next write.

    Of an observation only the newest is kept, and of a check its newest result: each says all that the ones before it
    said.

    Args:
        log: the compute log, which is told of what is not written.
    """

    def __init__(self, context: dg.AssetExecutionContext, clock: Clock, log: Logger) -> None:
        self._context, self._clock, self._log = context, clock, log
        self._left: dict[str, Callable[[], Any]] = {}
        self._again_at = 0.0
        self._messages = 0

    def event(self, event: dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation) -> None:
        name = event.check_name if isinstance(event, dg.AssetCheckEvaluation) else "report"
        self._write(f"event {name}", lambda: self._context.log_event(event))

    def tags(self, run_id: str, found: Mapping[str, str]) -> None:
        instance, named = self._context.instance, dict(found)
        self._write(f"tags {' '.join(sorted(named))}", lambda: instance.add_run_tags(run_id, named))

    def info(self, text: str) -> None:
        self._say(lambda: self._context.log.info(text))

    def warning(self, text: str) -> None:
        self._say(lambda: self._context.log.warning(text))

    def finish(self) -> None:
        """Write what is left, within FINISH_SECONDS. The rest is named in the compute log and given up."""
        deadline = self._clock.monotonic() + FINISH_SECONDS
        while self._left and self._clock.monotonic() < deadline:
            self._flush()
            if self._left:
                self._clock.sleep(1.0)
        if self._left:
            self._log.error("Dagster's storage took no write: %s not written", ", ".join(self._left))
            self._left.clear()

    def _say(self, say: Callable[[], None]) -> None:
        self._messages = (self._messages + 1) % _SAID
        self._write(f"message {self._messages}", say)

    def _write(self, what: str, write: Callable[[], Any]) -> None:
        self._left.pop(what, None)
        self._left[what] = write
        if self._clock.monotonic() >= self._again_at:
            self._flush()

    def _flush(self) -> None:
        """In the order of the writes, up to the first that fails."""
        for what, write in list(self._left.items()):
            began = self._clock.monotonic()
            try:
                write()
            except storage_errors() as error:
                now = self._clock.monotonic()
                self._again_at = now + max(AGAIN_SECONDS, 3 * (now - began))
                self._log.warning(
                    "Dagster's storage does not take %s (%s); the run goes on and tries again later",
                    what,
                    type(error).__name__,
                )
                return
            del self._left[what]

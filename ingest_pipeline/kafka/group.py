"""The group's offsets in Kafka: written after the ledger, for lag tools only, never a place to go on from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import Any

from confluent_kafka import KafkaException

from ..core.errors import IngestError
from ..core.ports import Clock
from ..core.record import Place
from .faults import map_error
from .topic import KafkaTopic

_EVERY_SECONDS = 1.0
_CLOSE_SECONDS = 2.0


class GroupCommits:
    """Sends the newest places, at most once a second, one request at a time.

    A failure is logged once, then forgotten.
    """

    def __init__(self, topic: KafkaTopic, group_id: str, mark: str, logger: logging.Logger, clock: Clock) -> None:
        self._topic = topic
        self._group_id = group_id
        self._mark = mark
        self._logger = logger
        self._clock = clock
        self._pending: dict[int, Place] = {}
        self._sent: Future[Any] | None = None
        self._next_at = 0.0
        self._logged: set[str] = set()

    def add(self, places: Mapping[int, Place]) -> None:
        """To be sent when due: `send_due` says when."""
        self._pending.update(places)

    def send_due(self) -> None:
        """Send what was added, unless something was sent less than a second ago or is still on its way."""
        if not self._pending or self._clock.monotonic() < self._next_at:
            return
        if self._sent is not None:
            if not self._sent.done():
                return
            self._settle(self._sent)
        self._send()

    def close(self) -> None:
        """Send the rest and wait for the answer, 2 s in all."""
        deadline = self._clock.monotonic() + _CLOSE_SECONDS
        for _ in range(2):
            if self._sent is not None:
                wait_for([self._sent], timeout=max(0.0, deadline - self._clock.monotonic()))
                if not self._sent.done():
                    return
                self._settle(self._sent)
            if self._pending:
                self._send()

    def _send(self) -> None:
        try:
            self._sent = self._topic.commit_group(self._group_id, self._pending, self._mark)
        except (KafkaException, IngestError) as error:
            self._log(error)
        self._pending = {}
        self._next_at = self._clock.monotonic() + _EVERY_SECONDS

    def _settle(self, sent: Future[Any]) -> None:
        self._sent = None
        error = sent.exception()
        if error is not None:
            self._log(error)
        else:
            for commit in sent.result().topic_partitions:
                if commit.error is not None:
                    self._log(KafkaException(commit.error))

    def _log(self, error: BaseException) -> None:
        if isinstance(error, KafkaException):
            error = map_error(error, f"{self._topic.where}, group {self._group_id}")
        text = str(error) if isinstance(error, IngestError) else type(error).__name__
        if text not in self._logged:
            self._logged.add(text)
            self._logger.warning("Lag tools will not see the position: %s", text)

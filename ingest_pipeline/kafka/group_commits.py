"""The group's offsets in Kafka: written after the ledger, for lag tools only, never a place to go on from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from ..core.ports import Clock
from ..core.record import NextOffset
from .errors import map_error

_EVERY_SECONDS = 1.0


class GroupCommits:
    """What to commit, and when: the newest places, at most once a second, one request at a time.

    A failure is logged once and forgotten: no record depends on it.
    """

    def __init__(self, where: str, logger: logging.Logger, clock: Clock) -> None:
        self._where = where
        self._logger = logger
        self._clock = clock
        self._pending: dict[int, NextOffset] = {}
        self._next_at = 0.0
        self._logged: set[int] = set()
        self._permitted = True
        self.in_flight = False
        """Whether a request waits for its answer."""

    def add(self, places: Mapping[int, NextOffset]) -> None:
        """To be committed when due, unless the right to do so is missing."""
        if self._permitted:
            self._pending.update(places)

    def take_due(self) -> dict[int, NextOffset]:
        """What to send now: nothing when less than a second has passed, or an answer is still awaited."""
        if not self._pending or self.in_flight or self._clock.monotonic() < self._next_at:
            return {}
        return self.take_rest()

    def take_rest(self) -> dict[int, NextOffset]:
        """What is left to send, whenever the last request was."""
        places, self._pending = self._pending, {}
        self._next_at = self._clock.monotonic() + _EVERY_SECONDS
        self.in_flight = bool(places)
        return places

    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """The client's callback: a request was answered, or given up."""
        self.in_flight = False
        errors = [error, *(partition.error for partition in partitions)]
        for refused in errors:
            if refused is not None:
                self.refuse(refused)

    def refuse(self, error: KafkaError | KafkaException) -> None:
        """Log why lag tools stay behind, once for each kind of error."""
        self.in_flight = False
        code = error.args[0].code() if isinstance(error, KafkaException) else error.code()
        if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            self._permitted, self._pending = False, {}
        if code not in self._logged:
            self._logged.add(code)
            reason = map_error(error, self._where).message
            self._logger.warning("Lag tools do not see the position, ingestion goes on: %s", reason)

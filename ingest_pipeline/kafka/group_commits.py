"""The group's offsets in Kafka, which follow the ledger and only serve lag tools."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from ..core.ports import Clock
from ..core.record import NextOffset
from .errors import map_error

_INTERVAL_SECONDS = 1.0


class GroupCommits:
    """The newest offsets to commit. Requests are at least a second apart and never overlap.

    A failure is logged once and has no other consequence.

    Attributes:
        in_flight: a request waits for its answer.
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

    def add(self, offsets: Mapping[int, NextOffset]) -> None:
        """Keep these offsets for the next request. Without the right to commit, the offsets are dropped."""
        if self._permitted:
            self._pending.update(offsets)

    def take_due(self) -> dict[int, NextOffset]:
        """Offsets to send now. Empty within a second of the last request and while an answer is outstanding."""
        if not self._pending or self.in_flight or self._clock.monotonic() < self._next_at:
            return {}
        return self.take_rest()

    def take_rest(self) -> dict[int, NextOffset]:
        """All unsent offsets, however recent the last request is."""
        offsets, self._pending = self._pending, {}
        self._next_at = self._clock.monotonic() + _INTERVAL_SECONDS
        self.in_flight = bool(offsets)
        return offsets

    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """The client's callback after the answer or the time-out of a request."""
        self.in_flight = False
        for refusal in (error, *(partition.error for partition in partitions)):
            if refusal is not None:
                self.refuse(refusal)

    def refuse(self, error: KafkaError | KafkaException) -> None:
        """Log once for each error code why lag tools show an old position."""
        self.in_flight = False
        code = error.args[0].code() if isinstance(error, KafkaException) else error.code()
        if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            self._permitted, self._pending = False, {}
        if code not in self._logged:
            self._logged.add(code)
            reason = map_error(error, self._where).message
            self._logger.warning("Lag tools do not see the position. Ingestion continues: %s", reason)

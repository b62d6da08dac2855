"""Decides when trouble with the brokers has lasted too long."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from functools import partial

from ..core.background import Background
from ..core.errors import KafkaUnavailable
from ..core.ports import Clock
from ..core.record import NextOffset
from ..core.start import unanswered_words
from .topics import KafkaTopics


class Trouble:
    """The time since the client's first sign of trouble without a message. Never waits for a broker."""

    def __init__(self, topics: KafkaTopics, clock: Clock, retry_seconds: float, background: Background) -> None:
        self._topics, self._clock, self._retry_seconds = topics, clock, retry_seconds
        self._background = background
        self._since: float | None = None
        self._ends: Future[dict[str, dict[int, NextOffset]]] | None = None

    def note(self) -> None:
        """The client has lost a connection, or a request has failed."""
        if self._since is None:
            self._since = self._clock.monotonic()

    def end(self) -> None:
        """A broker has answered."""
        self._since = self._ends = None

    def check(self, partitions: Mapping[str, Collection[int]]) -> None:
        """Raise KafkaUnavailable when the trouble has lasted for `retry_seconds`.

        An idle topic gives no sign when its broker is back, so the brokers are asked before the run gives up. An answer
        for one partition of any topic is enough: the other partitions may follow.

        Args:
            partitions: topic → partitions that are read.
        """
        if self._since is None or self._clock.monotonic() - self._since < self._retry_seconds:
            return
        if self._ends is None:
            self._ends = self._background(partial(self._topics.end_offsets, dict(partitions)))
        if not self._ends.done():
            return
        ends, self._ends = self._ends.result(), None
        if ends and not any(ends.values()):
            raise KafkaUnavailable(self._silence(partitions))
        self.end()

    def _silence(self, partitions: Mapping[str, Collection[int]]) -> str:
        if len(partitions) != 1:
            return f"{self._topics.admin.where}: no leader of a partition of {len(partitions)} topics answers"
        ((topic, numbers),) = partitions.items()
        return f"{self._topics.metadata.where(topic)}: {unanswered_words(numbers)}"

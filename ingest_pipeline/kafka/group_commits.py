"""The groups' offsets in Kafka, which follow the ledger and only serve lag tools."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import wait

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from ..core.ports import Clock
from ..core.record import NextOffset
from .client import topic_partition
from .commit_requests import CommitAnswer
from .errors import map_error

_GROUP_SECONDS = 1.0
"""The shortest time between two requests of a group."""
_REQUEST_SECONDS = 0.25
"""The shortest time between two requests of any groups. The commits of a hundred groups are up to 25 s old."""
_MAX_IN_FLIGHT = 8
_ANSWER_SECONDS = 1.0

Ask = Callable[[str, list[int]], CommitAnswer]
Send = Callable[[str, list[TopicPartition]], CommitAnswer]


class GroupCommits:
    """The newest offsets to commit for each topic's group. Requests of a group never overlap. The first request asks
    for the group's offsets.

    A failure is logged once for each group and code, and has no other consequence.

    Args:
        where: the beginning of a message.
        groups: topic → group id.
        mark: the metadata of the commits.
        ask: asks for the committed offsets of a topic's group without waiting.
        send: sends a topic's offsets to its group without waiting.
    """

    def __init__(
        self,
        where: str,
        groups: Mapping[str, str],
        mark: str,
        *,
        ask: Ask,
        send: Send,
        logger: logging.Logger,
        clock: Clock,
    ) -> None:
        self._where, self._groups, self._mark = where, groups, mark
        self._ask, self._request = ask, send
        self._logger, self._clock = logger, clock
        self._earlier: dict[str, dict[int, int]] = {}
        self._pending: dict[str, dict[int, NextOffset]] = {}
        self._in_flight: dict[str, CommitAnswer] = {}
        self._group_at: dict[str, float] = {}
        self._next_at = 0.0
        self._refused: set[str] = set()
        self._logged: set[tuple[str, int]] = set()

    @property
    def done(self) -> bool:
        """Whether every request was sent and answered."""
        return not self._pending and not self._in_flight

    def add(self, topic: str, offsets: Mapping[int, NextOffset]) -> None:
        """Keep these offsets for the next request. Without the right to commit, the offsets are dropped."""
        if topic not in self._refused:
            self._pending.setdefault(topic, {}).update(offsets)

    def earlier(self, topic: str) -> Mapping[int, int]:
        """Partition → the marked offset before the first commit. Waits for a moment for an answer under way."""
        if topic not in self._earlier and topic in self._in_flight:
            wait([self._in_flight[topic]], _ANSWER_SECONDS)
            self._take_answers()
        return self._earlier.get(topic, {})

    def send_due(self) -> None:
        """Send the request that is due first, if any."""
        now = self._clock.monotonic()
        if self._in_flight:
            self._take_answers()
        if not self._pending or now < self._next_at or len(self._in_flight) >= _MAX_IN_FLIGHT:
            return
        for topic in self._pending:
            if topic not in self._in_flight and now >= self._group_at.get(topic, 0.0):
                self._next_at = now + _REQUEST_SECONDS
                self._send(topic)
                return

    def send_rest(self) -> None:
        """Send unsent offsets, however recent the last request is."""
        self._take_answers()
        for topic in list(self._pending):
            if topic not in self._in_flight and len(self._in_flight) < _MAX_IN_FLIGHT:
                self._send(topic)

    def refuse(self, topic: str, error: KafkaError) -> None:
        """Log once for each error code why lag tools show an old position."""
        group = self._groups[topic]
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            self._refused.add(topic)
            self._pending.pop(topic, None)
        if (group, error.code()) not in self._logged:
            self._logged.add((group, error.code()))
            where = f"{self._where}, topic {topic}, group {group}"
            reason = map_error(error, where, to_coordinator=True).message
            self._logger.warning("Lag tools do not see the position. Ingestion continues: %s", reason)

    def _send(self, topic: str) -> None:
        if topic not in self._earlier:
            self._in_flight[topic] = self._ask(topic, list(self._pending[topic]))
            self._take_answers()
            if topic in self._in_flight or topic not in self._pending:
                return
        offsets = self._pending.pop(topic)
        self._group_at[topic] = self._clock.monotonic() + _GROUP_SECONDS
        marked = [topic_partition(topic, *offset, self._mark) for offset in offsets.items()]
        self._in_flight[topic] = self._request(topic, marked)

    def _take_answers(self) -> None:
        for topic, answer in list(self._in_flight.items()):
            if answer.done():
                del self._in_flight[topic]
                if topic not in self._earlier:
                    self._earlier[topic] = self._marked(answer)
                for error in _errors(answer):
                    self.refuse(topic, error)

    def _marked(self, answer: CommitAnswer) -> dict[int, int]:
        """Partition → offset of the ledger's own commits. Empty without an answer."""
        commits = [] if answer.exception() is not None else answer.result()
        return {
            commit.partition: commit.offset
            for commit in commits
            if commit.error is None and commit.metadata == self._mark
        }


def _errors(answer: CommitAnswer) -> list[KafkaError]:
    try:
        return [partition.error for partition in answer.result() if partition.error is not None]
    except KafkaException as failure:
        return [failure.args[0]]

"""Sends the commits of groups without waiting."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ..core.background import Background
from .admin import Admin, group_consumer

CommitAnswer = Future[Sequence[TopicPartition]]
"""The committed partitions with their errors, or KafkaException."""
_SECONDS = 5.0


class CommitRequests:
    """The reading consumer commits for its own group. With several groups, each request has a consumer of its own.

    Such a consumer costs 2 ms of CPU time.

    Args:
        groups: topic → group id.
        client_class: of the consumers.
    """

    def __init__(
        self, admin: Admin, groups: Mapping[str, str], background: Background, client_class: Callable[..., Consumer]
    ) -> None:
        self._admin, self._groups = admin, groups
        self._background, self._client_class = background, client_class
        self._answer = CommitAnswer()

    def ask(self, topic: str, partitions: Collection[int]) -> CommitAnswer:
        """The committed offsets of the topic's group."""
        asked = [TopicPartition(topic, partition) for partition in partitions]
        return self._background(partial(self._committed, self._groups[topic], asked))

    def send(self, consumer: Consumer, topic: str, offsets: list[TopicPartition]) -> CommitAnswer:
        if len(self._groups) > 1:
            return self._background(partial(self._commit, self._groups[topic], offsets))
        self._answer = CommitAnswer()
        try:
            consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._answer.set_exception(error)
        return self._answer

    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """The reading consumer calls this method after the answer or the time-out of its commit."""
        if error is None:
            self._answer.set_result(partitions)
        else:
            self._answer.set_exception(KafkaException(error))

    def _commit(self, group: str, offsets: list[TopicPartition]) -> Sequence[TopicPartition]:
        with group_consumer(self._admin, group, self._client_class) as consumer:
            return consumer.commit(offsets=offsets, asynchronous=False)

    def _committed(self, group: str, partitions: list[TopicPartition]) -> Sequence[TopicPartition]:
        with group_consumer(self._admin, group, self._client_class) as consumer:
            return consumer.committed(partitions, timeout=_SECONDS)

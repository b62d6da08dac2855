"""Sends the commits of groups without waiting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from .admin import Admin
from .background import in_background
from .group_consumer import group_consumer

CommitAnswer = Future[Sequence[TopicPartition]]
"""The committed partitions with their errors, or KafkaException."""


class CommitRequests:
    """The reading consumer commits for its own group. With several groups, each request has a consumer of its own.

    Such a consumer costs 2 ms of CPU time.

    Args:
        groups: topic → group id.
    """

    def __init__(self, admin: Admin, groups: Mapping[str, str]) -> None:
        self._admin, self._groups = admin, groups
        self._answer = CommitAnswer()

    def send(self, consumer: Consumer, topic: str, offsets: list[TopicPartition]) -> CommitAnswer:
        if len(self._groups) > 1:
            return in_background(partial(_commit, self._admin, self._groups[topic], offsets))
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


def _commit(admin: Admin, group: str, offsets: list[TopicPartition]) -> Sequence[TopicPartition]:
    with group_consumer(admin, group) as consumer:
        return consumer.commit(offsets=offsets, asynchronous=False)

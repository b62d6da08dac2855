"""Facts about one topic: its identity, its offsets and a group's commits. Creates no topic."""

from __future__ import annotations

import time
from collections.abc import Collection

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from ..core.errors import IngestError
from ..core.record import GroupOffset, NextOffset, TopicIdentity
from .admin import Admin, group_consumer
from .errors import map_error
from .metadata import MIN_TIMEOUT_SECONDS
from .topics import EARLIEST, LATEST, KafkaTopics, answered


class KafkaTopic:
    """The `Topic` port. Safe for several threads.

    Every call ends at most about a second after `timeout_seconds`, with an answer, KafkaUnavailable, NotPermitted or
    TopicMissing.
    """

    def __init__(self, admin: Admin, name: str, *, timeout_seconds: float = 5.0) -> None:
        self.name = name
        self._admin = admin
        self._topics = KafkaTopics(admin, timeout_seconds=timeout_seconds)
        self.where = self._topics.metadata.where(name)

    def identity(self) -> TopicIdentity:
        identity = self._topics.identities([self.name])[self.name]
        if isinstance(identity, IngestError):
            raise identity
        return identity

    def end_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        return answered(self._offsets(partitions, LATEST, self._topics.deadline(), self._topics.isolation))

    def high_watermarks(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        return answered(self._offsets(partitions, LATEST, self._topics.deadline(), IsolationLevel.READ_UNCOMMITTED))

    def start_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        return answered(self._offsets(partitions, EARLIEST, self._topics.deadline(), self._topics.isolation))

    def offsets_at(self, partitions: Collection[int], timestamp_ms: int) -> dict[int, NextOffset]:
        deadline, isolation = self._topics.deadline(), self._topics.isolation
        ends = answered(self._offsets(partitions, LATEST, deadline, isolation))
        offsets = self._offsets(ends.keys(), OffsetSpec.for_timestamp(timestamp_ms), deadline, isolation)
        return {partition: offset or ends[partition] for partition, offset in offsets.items()}

    def group_offsets(self, group: str) -> dict[int, GroupOffset]:
        deadline = self._topics.deadline()
        _, topic = self._topics.metadata.of(self.name, deadline)
        if isinstance(topic, IngestError):
            raise topic
        partitions = [TopicPartition(self.name, partition) for partition in topic.partitions]
        where = f"{self.where}, group {group}"
        try:
            with group_consumer(self._admin, group) as consumer:
                timeout_seconds = max(MIN_TIMEOUT_SECONDS, deadline - time.monotonic())
                committed = consumer.committed(partitions, timeout=timeout_seconds)
        except KafkaException as error:
            raise map_error(error, where, to_coordinator=True) from error
        offsets: dict[int, GroupOffset] = {}
        for commit in committed:
            if commit.error is not None:
                raise map_error(commit.error, where, partition=commit.partition)
            if commit.offset >= 0:
                offsets[commit.partition] = GroupOffset(commit.offset, commit.metadata or "")
        return offsets

    def _offsets(
        self, partitions: Collection[int], spec: OffsetSpec, deadline: float, isolation: IsolationLevel
    ) -> dict[int, NextOffset | None]:
        answers, errors = self._topics.offsets({self.name: partitions}, spec, deadline, isolation)
        if self.name in errors:
            raise errors[self.name]
        return answers[self.name]

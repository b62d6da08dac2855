"""Facts about one topic: its identity, its offsets and a group's commits. Creates no topic."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from ..core.errors import KafkaUnavailable, TopicMissing
from ..core.record import GroupOffset, NextOffset, TopicIdentity, next_offset_or_none
from .admin import Admin
from .client import bootstrap_servers, consumer_config, isolation_level, open_client
from .errors import is_transient, map_error

_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_NO_TOPIC_ID = "A" * 22
"""A Uuid of zeros, the answer of a broker before 2.8."""
_URL_SAFE = str.maketrans("+/", "-_")
"""Kafka's tools print a Uuid with these characters."""
_TRIES = 4
_RETRY_SECONDS = 0.1
_MIN_TIMEOUT_SECONDS = 0.1
_GRACE_SECONDS = 1.0
"""Once a leader has answered, the question ends this long after its start. The other leaders may be moving."""
_NO_RECORD = -1
"""The offset in an answer about a time when every record is older."""
_has_topic_ids: dict[str, bool] = {}
"""Bootstrap servers → whether the brokers answer questions about topic ids. False: the brokers named no controller and
did not answer. The process asks such brokers again only if their metadata names a controller."""


class KafkaTopic:
    """The `Topic` port. Safe for several threads.

    Every call ends at most about a second after `timeout_seconds`, with an answer, KafkaUnavailable, NotPermitted or
    TopicMissing.
    """

    def __init__(self, admin: Admin, name: str, *, timeout_seconds: float = 5.0) -> None:
        self.name = name
        self.where = f"{admin.where}, topic {name}"
        self._admin = admin
        self._timeout = timeout_seconds
        self._grace = min(_GRACE_SECONDS, timeout_seconds / 2)
        self._isolation = (
            IsolationLevel.READ_UNCOMMITTED
            if isolation_level(admin.kafka) == "read_uncommitted"
            else IsolationLevel.READ_COMMITTED
        )

    def identity(self) -> TopicIdentity:
        deadline = self._deadline()
        while True:
            metadata, topic = self._metadata(deadline)
            has_controller = metadata.controller_id in metadata.brokers
            try:
                topic_id = self._topic_id(has_controller, min(deadline, time.monotonic() + self._timeout / _TRIES))
            except KafkaUnavailable:
                if time.monotonic() + _RETRY_SECONDS > deadline:
                    raise
            else:
                return TopicIdentity(metadata.cluster_id, topic_id, len(topic.partitions))

    def end_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        return _answered(self._offsets(partitions, _LATEST, self._deadline(), self._isolation))

    def high_watermarks(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        return _answered(self._offsets(partitions, _LATEST, self._deadline(), IsolationLevel.READ_UNCOMMITTED))

    def start_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        return _answered(self._offsets(partitions, _EARLIEST, self._deadline(), self._isolation))

    def offsets_at(self, partitions: Collection[int], timestamp_ms: int) -> dict[int, NextOffset]:
        deadline = self._deadline()
        ends = _answered(self._offsets(partitions, _LATEST, deadline, self._isolation))
        spec = OffsetSpec.for_timestamp(timestamp_ms)
        offsets = self._offsets(ends.keys(), spec, deadline, self._isolation)
        return {partition: offset or ends[partition] for partition, offset in offsets.items()}

    def group_offsets(self, group: str) -> dict[int, GroupOffset]:
        deadline = self._deadline()
        _, topic = self._metadata(deadline)
        partitions = [TopicPartition(self.name, partition) for partition in topic.partitions]
        where = f"{self.where}, group {group}"
        # A consumer asks, because librdkafka 2.16 aborts the process when a coordinator goes away while an AdminClient
        # asks for a group's offsets (confluentinc/librdkafka#5397).
        config = consumer_config(self._admin.kafka, group, 0, self._admin.client_id)
        consumer = open_client(Consumer, config, self._admin.logger)
        try:
            committed = consumer.committed(partitions, timeout=max(_MIN_TIMEOUT_SECONDS, deadline - time.monotonic()))
        except KafkaException as error:
            event = consumer.poll(0)  # the client reports a missing right as an event, and the request times out
            reported = event.error() if event is not None else None
            raise map_error(error if reported is None else reported, where) from error
        finally:
            consumer.close()
        offsets: dict[int, GroupOffset] = {}
        for commit in committed:
            if commit.error is not None:
                raise map_error(commit.error, where, partition=commit.partition)
            if commit.offset >= 0:
                offsets[commit.partition] = GroupOffset(commit.offset, commit.metadata or "")
        return offsets

    def _metadata(self, deadline: float) -> tuple[Any, Any]:
        """Metadata from any broker. A frozen broker costs one try, not the answer."""
        client = self._admin.client()
        try_seconds = (deadline - time.monotonic()) / _TRIES
        while True:
            try:
                metadata = client.list_topics(self.name, timeout=max(_MIN_TIMEOUT_SECONDS, try_seconds))
                break
            except KafkaException as error:
                fault = self._admin.fault(error, self.where)
                if not isinstance(fault, KafkaUnavailable) or time.monotonic() + _RETRY_SECONDS > deadline:
                    raise fault from error
            finally:
                client.poll(0)  # the client hands over its log lines only here
            time.sleep(_RETRY_SECONDS)
        self._admin.answered()
        topic = metadata.topics[self.name]
        if topic.error is not None:
            raise map_error(topic.error, self.where)
        if not topic.partitions:
            raise TopicMissing(f"{self.where}: the topic has no partitions. Create it, or correct the stream's topic")
        return metadata, topic

    def _topic_id(self, has_controller: bool, deadline: float) -> str | None:
        servers = bootstrap_servers(self._admin.kafka)
        if not has_controller and _has_topic_ids.get(servers) is False:
            return None
        while True:
            try:
                description = self._describe(deadline)
                break
            except KafkaException as error:
                code = error.args[0].code()
                if code in (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION):
                    return None
                if not has_controller and code == KafkaError._TIMED_OUT and servers not in _has_topic_ids:
                    _has_topic_ids[servers] = False
                    return None
                if not is_transient(error) or time.monotonic() + _RETRY_SECONDS > deadline:
                    raise self._admin.fault(error, self.where) from error
            time.sleep(_RETRY_SECONDS)
        _has_topic_ids[servers] = True
        topic_id = str(description.topic_id).translate(_URL_SAFE)
        return None if topic_id == _NO_TOPIC_ID else topic_id

    def _describe(self, deadline: float) -> Any:
        client = self._admin.client()
        timeout_seconds = max(_MIN_TIMEOUT_SECONDS, deadline - time.monotonic())
        try:
            (future,) = client.describe_topics(TopicCollection([self.name]), request_timeout=timeout_seconds).values()
            return future.result(timeout_seconds + 1.0)
        except TimeoutError as error:
            raise KafkaUnavailable(f"{self.where}: no answer within {self._timeout:g} s") from error
        finally:
            client.poll(0)

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout

    def _offsets(
        self, partitions: Collection[int], spec: OffsetSpec, deadline: float, isolation: IsolationLevel
    ) -> dict[int, NextOffset | None]:
        """Partition → offset, or None where every record is older than the time. Silent partitions are left out.

        A leader may be moving, so the question is repeated until the deadline, or until _GRACE_SECONDS after the
        question began if another partition has answered.
        """
        answers: dict[int, NextOffset | None] = {}
        grace_end = min(deadline, time.monotonic() + self._grace)
        while True:
            waiting = set(partitions) - answers.keys()
            if not waiting:
                return answers
            answers |= self._ask_leaders(waiting, spec, deadline, isolation)
            waiting -= answers.keys()
            if not waiting:
                return answers
            try:
                _, topic = self._metadata(max(deadline, time.monotonic() + self._grace))
            except KafkaUnavailable:
                if not answers:
                    raise
                return answers
            missing = sorted(waiting - topic.partitions.keys())
            if time.monotonic() + _RETRY_SECONDS > (grace_end if answers or missing else deadline):
                if missing:
                    raise TopicMissing(f"{self.where}: there is no partition {missing[0]}", partition=missing[0])
                return answers
            time.sleep(_RETRY_SECONDS)

    def _ask_leaders(
        self, partitions: Collection[int], spec: OffsetSpec, deadline: float, isolation: IsolationLevel
    ) -> dict[int, NextOffset | None]:
        """One request for all partitions. For an unreachable leader the client returns offset -1001 and no error."""
        specs = {TopicPartition(self.name, partition): spec for partition in partitions}
        client = self._admin.client()
        timeout_seconds = max(_MIN_TIMEOUT_SECONDS, deadline - time.monotonic())
        answers: dict[int, NextOffset | None] = {}
        try:
            futures = client.list_offsets(specs, isolation_level=isolation, request_timeout=timeout_seconds)
            for key, future in futures.items():
                try:
                    result = future.result(timeout_seconds + 1.0)
                except TimeoutError:
                    continue
                except KafkaException as error:
                    fault = self._admin.fault(error, self.where)
                    if not isinstance(fault, (KafkaUnavailable, TopicMissing)):
                        raise fault from error
                    continue
                offset = next_offset_or_none(result.offset, result.leader_epoch)
                if offset is not None or (result.offset == _NO_RECORD and spec not in (_LATEST, _EARLIEST)):
                    answers[key.partition] = offset
        finally:
            client.poll(0)  # the client hands over its log lines only here
        return answers


def _answered(answers: dict[int, NextOffset | None]) -> dict[int, NextOffset]:
    return {partition: offset for partition, offset in answers.items() if offset is not None}

"""One topic's facts, by an AdminClient: identity, offsets, a group's commits. Creates no topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from ..core.errors import IngestError, KafkaUnavailable, TopicMissing
from ..core.record import GroupOffset, Place, TopicIdentity
from .admin import Admin
from .client import bootstrap_servers, consumer_config, isolation_level, open_client
from .faults import map_error, passes

_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_NO_TOPIC_ID = "A" * 22
"""A Uuid of zeros: what a broker before 2.8 says."""
_URL_SAFE = str.maketrans("+/", "-_")
"""As Kafka's own tools write a Uuid."""
_TOPIC_ID_SECONDS = 1.5
_RETRY_SECONDS = 0.1
_LEAST_SECONDS = 0.1
_cannot_tell_topic_ids: set[str] = set()
"""Bootstrap servers that name no controller and did not answer for a topic id: asked once in a process."""


class KafkaTopic:
    """The `Topic` port. May be used by several threads.

    Every call ends within `timeout_seconds`: with an answer, KafkaUnavailable, NotPermitted or TopicMissing.
    """

    def __init__(self, admin: Admin, name: str, *, timeout_seconds: float = 5.0) -> None:
        self.name = name
        self.where = f"{admin.where}, topic {name}"
        self._admin = admin
        self._timeout = timeout_seconds
        self._isolation = (
            IsolationLevel.READ_UNCOMMITTED
            if isolation_level(admin.kafka) == "read_uncommitted"
            else IsolationLevel.READ_COMMITTED
        )

    def identity(self) -> TopicIdentity:
        deadline = time.monotonic() + self._timeout
        metadata, topic = self._metadata(self._timeout)
        has_controller = metadata.controller_id in metadata.brokers
        left = max(_LEAST_SECONDS, deadline - time.monotonic())
        return TopicIdentity(metadata.cluster_id, self._topic_id(has_controller, left), len(topic.partitions))

    def end_offsets(self, partitions: Collection[int]) -> dict[int, Place]:
        return self._offsets(partitions, _LATEST, self._timeout)

    def high_watermarks(self, partitions: Collection[int]) -> dict[int, Place]:
        return self._offsets(partitions, _LATEST, self._timeout, IsolationLevel.READ_UNCOMMITTED)

    def start_offsets(self, partitions: Collection[int]) -> dict[int, Place]:
        return self._offsets(partitions, _EARLIEST, self._timeout)

    def offsets_at(self, partitions: Collection[int], timestamp_ms: int) -> dict[int, Place]:
        deadline = time.monotonic() + self._timeout
        found = self._offsets(partitions, OffsetSpec.for_timestamp(timestamp_ms), self._timeout)
        without = [partition for partition, place in found.items() if place.next_offset < 0]
        if without:
            left = max(_LEAST_SECONDS, deadline - time.monotonic())
            found.update(self._offsets(without, _LATEST, left))
        return found

    def group_offsets(self, group: str) -> dict[int, GroupOffset]:
        deadline = time.monotonic() + self._timeout
        _, topic = self._metadata(self._timeout)
        asked = [TopicPartition(self.name, partition) for partition in topic.partitions]
        where = f"{self.where}, group {group}"
        # A consumer asks, not the AdminClient: librdkafka 2.16 aborts the process when a coordinator goes away
        # while an AdminClient asks for a group's offsets (confluentinc/librdkafka#5397).
        config = consumer_config(self._admin.kafka, group, 0, self._admin.client_id)
        consumer = open_client(Consumer, config, self._admin.logger)
        try:
            committed = consumer.committed(asked, timeout=max(_LEAST_SECONDS, deadline - time.monotonic()))
        except KafkaException as error:
            event = consumer.poll(0)  # a missing right is told as an event, while the request just times out
            told = event.error() if event is not None else None
            raise map_error(error if told is None else told, where) from error
        finally:
            consumer.close()
        offsets: dict[int, GroupOffset] = {}
        for commit in committed:
            if commit.error is not None:
                raise map_error(commit.error, where, partition=commit.partition)
            if commit.offset >= 0:
                offsets[commit.partition] = GroupOffset(commit.offset, commit.metadata or "")
        return offsets

    def _metadata(self, timeout: float) -> tuple[Any, Any]:
        client = self._admin.client()
        try:
            metadata = client.list_topics(self.name, timeout=timeout)
        except KafkaException as error:
            raise self._admin.fault(error, self.where) from error
        finally:
            client.poll(0)  # hands the client's log lines on; nothing else would
        self._admin.answered()
        topic = metadata.topics[self.name]
        if topic.error is not None:
            raise map_error(topic.error, self.where)
        if not topic.partitions:
            raise TopicMissing(f"{self.where}: it has no partitions; create it, or correct the stream's topic")
        return metadata, topic

    def _topic_id(self, has_controller: bool, timeout: float) -> str | None:
        servers = bootstrap_servers(self._admin.kafka)
        if not has_controller:
            if servers in _cannot_tell_topic_ids:
                return None
            timeout = min(timeout, _TOPIC_ID_SECONDS)
        try:
            (described,) = self._answers(
                lambda client, left: client.describe_topics(TopicCollection([self.name]), request_timeout=left),
                timeout,
                self.where,
            ).values()
        except IngestError as error:
            code = _code(error)
            if code in (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION):
                return None
            if not has_controller and code == KafkaError._TIMED_OUT:
                _cannot_tell_topic_ids.add(servers)
                return None
            raise
        topic_id = str(described.topic_id).translate(_URL_SAFE)
        return None if topic_id == _NO_TOPIC_ID else topic_id

    def _offsets(
        self, partitions: Collection[int], spec: OffsetSpec, timeout: float, isolation: IsolationLevel | None = None
    ) -> dict[int, Place]:
        """One request for all; an offset of -1 means that no record is as young as the timestamp."""
        if not partitions:
            return {}
        asked = {TopicPartition(self.name, partition): spec for partition in partitions}
        isolation = self._isolation if isolation is None else isolation
        answers = self._answers(
            lambda client, left: client.list_offsets(asked, isolation_level=isolation, request_timeout=left),
            timeout,
            self.where,
            partitions,
        )
        return {asked.partition: Place(found.offset, found.leader_epoch) for asked, found in answers.items()}

    def _answers(
        self,
        ask: Callable[[AdminClient, float], Mapping[Any, Future[Any]]],
        timeout: float,
        where: str,
        partitions: Collection[int] = (),
    ) -> dict[Any, Any]:
        """What each of the request's futures comes to. Asks again while a leader is moving, up to the time-out."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(_LEAST_SECONDS, deadline - time.monotonic())
            client = self._admin.client()
            try:
                return {key: future.result(left + 1.0) for key, future in ask(client, left).items()}
            except KafkaException as error:
                self._explain_no_leader(error, partitions, left)
                if not passes(error) or time.monotonic() + _RETRY_SECONDS > deadline:
                    raise self._admin.fault(error, where) from error
            except TimeoutError as error:
                raise KafkaUnavailable(f"{where}: no answer within {timeout:g} s") from error
            finally:
                client.poll(0)
            time.sleep(_RETRY_SECONDS)

    def _explain_no_leader(self, error: KafkaException, partitions: Collection[int], timeout: float) -> None:
        """The client says `_NOENT` for partitions without a leader, missing partitions and a missing topic alike."""
        if error.args[0].code() != KafkaError._NOENT:
            return
        _, topic = self._metadata(timeout)
        missing = sorted(set(partitions) - set(topic.partitions))
        if missing:
            raise TopicMissing(f"{self.where}: there is no partition {missing[0]}", partition=missing[0]) from error


def _code(error: IngestError) -> int | None:
    cause = error.__cause__
    return cause.args[0].code() if isinstance(cause, KafkaException) else None

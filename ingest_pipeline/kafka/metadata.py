"""Metadata of topics: existence, partitions and ids. Creates no topic."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

from ..core.errors import IngestError, KafkaUnavailable, TopicMissing
from ..core.record import TopicIdentity
from .admin import Admin
from .client import bootstrap_servers
from .errors import map_error

_NO_TOPIC_ID = "A" * 22
"""A Uuid of zeros, the answer of a broker before 2.8."""
_URL_SAFE = str.maketrans("+/", "-_")
"""Kafka's tools print a Uuid with these characters."""
RETRY_SECONDS = 0.1
MIN_TIMEOUT_SECONDS = 0.1
_CONTROLLER_TRIES = 20
"""Questions for another controller. With two brokers all of them give the same answer once in a million times."""
_has_topic_ids: dict[str, bool] = {}
"""Bootstrap servers → whether the brokers answer questions about topic ids. False: the brokers named no controller and
did not answer. The process asks such brokers again only if their metadata names a controller."""


class Metadata:
    """Asks any broker for metadata, and the controller for topic ids. Safe for several threads.

    Args:
        try_seconds: the time-out of one try.
    """

    def __init__(self, admin: Admin, try_seconds: float) -> None:
        self._admin, self._try_seconds = admin, try_seconds

    def where(self, topic: str) -> str:
        """The beginning of a message about the topic."""
        return f"{self._admin.where}, topic {topic}"

    def of(self, topic: str, deadline: float) -> tuple[Any, Any]:
        """(metadata, the topic's metadata or error) from any broker. A frozen broker costs one try, not the answer."""
        try_seconds = min(self._try_seconds, (deadline - time.monotonic()))
        while True:
            client = self._admin.client()
            try:
                metadata = client.list_topics(topic, timeout=max(MIN_TIMEOUT_SECONDS, try_seconds))
                break
            except KafkaException as error:
                fault = self._admin.fault(error, self.where(topic))
                if not isinstance(fault, KafkaUnavailable) or time.monotonic() + RETRY_SECONDS > deadline:
                    raise fault from error
                self._admin.give_up(client)
            finally:
                client.poll(0)  # the client hands over its log lines only here
            time.sleep(RETRY_SECONDS)
        self._admin.has_metadata = True
        state = metadata.topics[topic]
        if state.error is not None:
            return metadata, map_error(state.error, self.where(topic))
        return metadata, state if state.partitions else self._no_partitions(topic)

    def _no_partitions(self, topic: str) -> TopicMissing:
        return TopicMissing(
            f"{self.where(topic)}: the topic has no partitions. Create it, or correct the stream's topic"
        )

    def identities(self, topics: Collection[str], deadline: float) -> dict[str, TopicIdentity | IngestError]:
        """One description of all topics. The metadata of the first topic adds the cluster's id.

        Raises:
            KafkaUnavailable: no broker that another broker names as the controller answers.
        """
        first, *_ = topics
        for metadata in self._tries(first, deadline):
            identities = self._identities(metadata, topics, deadline)
            silences = [error for error in identities.values() if isinstance(error, KafkaUnavailable)]
            if len(silences) < len(identities):
                return identities
        raise silences[0]

    def _identities(
        self, metadata: Any, topics: Collection[str], deadline: float
    ) -> dict[str, TopicIdentity | IngestError]:
        servers, has_controller = bootstrap_servers(self._admin.kafka), metadata.controller_id in metadata.brokers
        if not has_controller and _has_topic_ids.get(servers) is False:
            return self._identities_without_topic_ids(topics, deadline)
        identities: dict[str, TopicIdentity | IngestError] = {}
        for topic, description in self._describe(topics, deadline):
            if not isinstance(description, KafkaException):
                _has_topic_ids[servers] = True
                topic_id = str(description.topic_id).translate(_URL_SAFE)
                identities[topic] = (
                    TopicIdentity(
                        metadata.cluster_id,
                        None if topic_id == _NO_TOPIC_ID else topic_id,
                        len(description.partitions),
                    )
                    if description.partitions
                    else self._no_partitions(topic)
                )
                continue
            code = description.args[0].code()
            if not has_controller and code == KafkaError._TIMED_OUT and servers not in _has_topic_ids:
                _has_topic_ids[servers] = False
                return self._identities_without_topic_ids(topics, deadline)
            if code in (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION):
                return self._identities_without_topic_ids(topics, deadline)
            identities[topic] = self._admin.fault(description, self.where(topic))
        return identities

    def rights(self, topic: str, deadline: float) -> Collection[AclOperation] | None:
        """The client's rights on the topic. None: the broker does not tell.

        Raises:
            KafkaUnavailable: no broker that another broker names as the controller answers.
        """
        for metadata in self._tries(topic, deadline):
            ((_, description),) = self._describe([topic], deadline, rights=True)
            if not isinstance(description, KafkaException):
                rights: Collection[AclOperation] | None = description.authorized_operations
                return rights
            fault = self._admin.fault(description, self.where(topic))
            if not isinstance(fault, KafkaUnavailable) or metadata.controller_id not in metadata.brokers:
                return None
        raise fault

    def _tries(self, topic: str, deadline: float) -> Iterator[Any]:
        """Metadata for each try of a question to the controller, with another controller than before if a broker names
        one.

        The client sends the next description to the controller in its newest metadata. A broker of a KRaft cluster
        names a random broker that it can reach, because every broker passes requests on to the controller.
        """
        silent: set[int] = set()
        while True:
            for _ in range(_CONTROLLER_TRIES):
                metadata, _ = self.of(topic, deadline)
                if metadata.controller_id not in silent:
                    break
            yield metadata
            if time.monotonic() + RETRY_SECONDS > deadline:
                return
            if metadata.controller_id in metadata.brokers:
                silent.add(metadata.controller_id)
            time.sleep(RETRY_SECONDS)

    def _identities_without_topic_ids(
        self, topics: Collection[str], deadline: float
    ) -> dict[str, TopicIdentity | IngestError]:
        identities: dict[str, TopicIdentity | IngestError] = {}
        for topic in topics:
            metadata, state = self.of(topic, deadline)
            identities[topic] = (
                state
                if isinstance(state, IngestError)
                else TopicIdentity(metadata.cluster_id, None, len(state.partitions))
            )
        return identities

    def _describe(self, topics: Collection[str], deadline: float, rights: bool = False) -> list[tuple[str, Any]]:
        """(topic, description or KafkaException). The client prefers the controller."""
        client = self._admin.client()
        deadline = min(deadline, time.monotonic() + self._try_seconds)
        timeout_seconds = max(MIN_TIMEOUT_SECONDS, deadline - time.monotonic())
        futures = client.describe_topics(
            TopicCollection(list(topics)), include_authorized_operations=rights, request_timeout=timeout_seconds
        )
        descriptions: list[tuple[str, Any]] = []
        for topic, future in futures.items():
            try:
                remaining = max(0.0, deadline + 1.0 - time.monotonic())
                descriptions.append((topic, future.result(remaining)))
            except KafkaException as error:
                descriptions.append((topic, error))
            except TimeoutError:
                descriptions.append((topic, KafkaException(KafkaError(KafkaError._TIMED_OUT))))
        client.poll(0)
        return descriptions

"""The AdminClient. All topics of a process share it, because every client has its own threads and connections."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from ..core.errors import IngestError, KafkaUnavailable
from .client import admin_config, bootstrap_servers, consumer_config, open_client
from .errors import map_error


class Admin:
    """Connects on first use. Safe for several threads.

    Args:
        kafka: the user's librdkafka properties.

    Attributes:
        has_metadata: whether a broker has answered the present client.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        client_id: str = "ingest",
        logger: logging.Logger | None = None,
        client_class: Callable[..., AdminClient] = AdminClient,
    ) -> None:
        self.kafka = dict(kafka)
        self.client_id = client_id
        self.logger = logger or logging.getLogger(__name__)
        self.where = f"Kafka at {bootstrap_servers(kafka)}"
        self._lock = threading.Lock()
        self._client: AdminClient | None = None
        self._client_class = client_class
        self._hint: KafkaError | None = None  # the client's last explanation for silent brokers
        self.has_metadata = False

    def client(self) -> AdminClient:
        """Raises SettingsError when librdkafka refuses a property."""
        with self._lock:
            if self._client is None:
                config = admin_config(self.kafka, self.client_id) | {"error_cb": self._on_error}
                self._client = open_client(self._client_class, config, self.logger)
            return self._client

    def close(self) -> None:
        """Drop the connections without waiting. The next call connects again."""
        with self._lock:
            self._client, self.has_metadata = None, False

    def answered(self) -> None:
        """A question has got its answer, so the client's earlier explanation for silence is void.

        Metadata alone is no such answer. It comes from an address in the settings, and the client may not reach the
        brokers that the metadata names. The client repeats an equal explanation only after 30 s.
        """
        self._hint = None

    def give_up(self, client: AdminClient) -> None:
        """Drop a client that had metadata before and gets none now. The next call connects again.

        The client asks connected brokers first, also one that became silent, until `socket.timeout.ms`. A new client
        asks the brokers that answer it. Open questions to the old client end without an answer.
        """
        with self._lock:
            if self._client is client and self.has_metadata:
                self._client, self.has_metadata = None, False

    def has_members(self, group: str, timeout_seconds: float = 5.0) -> bool | None:
        """Whether the group has members now. None when a broker that may know the group does not answer."""
        states = (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD, ConsumerGroupState.UNKNOWN)
        try:
            answer = self.client().list_consumer_groups(request_timeout=timeout_seconds)
            groups = answer.result(timeout_seconds + 1.0)
        except (KafkaException, TimeoutError):
            return None
        if any(listing.group_id == group and listing.state not in states for listing in groups.valid):
            return True
        return None if groups.errors else False

    def fault(self, error: KafkaException, where: str) -> IngestError:
        """The error for a failed request. The client's own report explains a silence, such as a refused login."""
        self.client().poll(0)  # runs _on_error
        mapped = map_error(error, where)
        if self._hint is not None and isinstance(mapped, KafkaUnavailable):
            return map_error(self._hint, where)
        return mapped

    def _on_error(self, error: KafkaError) -> None:
        explains = error.code() in (KafkaError._SSL, KafkaError._RESOLVE)
        if explains or not isinstance(map_error(error, self.where), KafkaUnavailable):
            self._hint = error


@contextmanager
def group_consumer(admin: Admin, group: str, client_class: Callable[..., Consumer] = Consumer) -> Iterator[Consumer]:
    """Open a consumer for one request about the group's offsets.

    An AdminClient would do without the group's own client. But librdkafka 2.16 aborts the process when a coordinator
    goes away while an AdminClient asks for or changes a group's offsets (confluentinc/librdkafka#5397, and measured).

    Raises:
        KafkaException: the client's report, such as a missing right, rather than the time-out of the request.
    """
    consumer = open_client(client_class, consumer_config(admin.kafka, group, 0, admin.client_id), admin.logger)
    try:
        yield consumer
    except KafkaException as error:
        event = consumer.poll(0)
        report = event.error() if event is not None else None
        raise (error if report is None else KafkaException(report)) from error
    finally:
        consumer.close()

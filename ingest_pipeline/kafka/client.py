"""The properties of every Kafka client."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from ..core.errors import SettingsError
from ..core.record import NextOffset

Client = TypeVar("Client")

_MIB = 1024 * 1024
_REPEAT_SECONDS = 30.0

# The user cannot change these: PostgreSQL holds the positions, and the client must never move one by itself.
_FIXED: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "allow.auto.create.topics": False,
    "statistics.interval.ms": 0,
    # The client joins no group. These only bound how long close() waits for an absent coordinator (45 s by default).
    "session.timeout.ms": 1500,
    "heartbeat.interval.ms": 500,
}

# The user can change these.
_DEFAULTS: dict[str, Any] = {
    "isolation.level": "read_committed",
    "fetch.queue.backoff.ms": 2,  # librdkafka's default, 1000, stalls a reader that is faster than the network
    # A run's first fetch may lack some of its partitions, and the broker holds an empty fetch for this long. With
    # librdkafka's default, 500, every other start took half a second longer. An idle run fetches 20 times a second.
    "fetch.wait.max.ms": 50,
    "queued.min.messages": 20_000,
    "socket.timeout.ms": 15_000,  # a frozen broker is noticed after this time (librdkafka's default: 60000)
    "log.connection.close": False,
}

# The other properties of a client come from the user.
_OWN = frozenset({*_FIXED, *_DEFAULTS, "client.id", "group.id", "error_cb", "on_commit"})

_CONSUMER_PROPERTIES = """
    check.crcs client.rack fetch.error.backoff.ms fetch.max.bytes fetch.message.max.bytes fetch.min.bytes
    fetch.queue.backoff.ms fetch.wait.max.ms isolation.level max.partition.fetch.bytes max.poll.interval.ms
    queued.max.messages.kbytes queued.min.messages
"""
"""An AdminClient answers these with a warning."""


def bootstrap_servers(kafka: Mapping[str, str]) -> str:
    return kafka.get("bootstrap.servers") or kafka.get("metadata.broker.list") or "(no bootstrap.servers)"


def topic_partition(topic: str, partition: int, offset: NextOffset, metadata: str = "") -> TopicPartition:
    """An offset for the client, with -1 for an unknown epoch."""
    epoch = -1 if offset.leader_epoch is None else offset.leader_epoch
    return TopicPartition(topic, partition, offset.next_offset, metadata=metadata, leader_epoch=epoch)


def consumer_config(
    kafka: Mapping[str, str], group_id: str, batch_bytes: int, client_id: str = "ingest"
) -> dict[str, Any]:
    """Properties of a consumer that never resets, stores or commits an offset by itself.

    The consumer prefetches about `batch_bytes` (at least 1 MiB, at most 64 MiB) plus one fetch response.

    Args:
        kafka: the user's librdkafka properties, validated. User values override defaults, not fixed properties.
        batch_bytes: BATCH_BYTES of the stream.
    """
    prefetch_bytes = min(max(batch_bytes, _MIB), 64 * _MIB)
    sized = {
        "client.id": client_id,
        "queued.max.messages.kbytes": prefetch_bytes // 1024,
        "fetch.max.bytes": min(prefetch_bytes, 16 * _MIB),
    }
    return {**_DEFAULTS, **sized, **kafka, **_FIXED, "group.id": group_id}


def admin_config(kafka: Mapping[str, str], client_id: str) -> dict[str, Any]:
    """Properties of an AdminClient. A question about a topic must not create the topic."""
    common = {name: value for name, value in kafka.items() if name not in _CONSUMER_PROPERTIES.split()}
    return {
        "client.id": client_id,
        # The client prefers a connected broker and repeats a question to a frozen broker until the question is this
        # old. With librdkafka's default, 60000, no question got an answer for a minute (2.16, measured).
        "socket.timeout.ms": 2_000,
        "log.connection.close": False,
        **common,
        "allow.auto.create.topics": False,
        "statistics.interval.ms": 0,
    }


def isolation_level(kafka: Mapping[str, str]) -> str:
    return str(kafka.get("isolation.level", _DEFAULTS["isolation.level"]))


class ClientLog:
    """librdkafka's log lines → a logger. A kind of line appears at most once in 30 s, at WARNING or below.

    The client reports a failed connection ten times a second while it retries. Faults that need a person are raised as
    errors, not logged.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._last: dict[tuple[Any, ...], float] = {}

    def log(self, level: int, message: str, *args: Any) -> None:
        """The client calls `log(level, "%s [%s] %s", facility, client, text)`."""
        kind = (level, *args[:1])
        now = time.monotonic()
        if now - self._last.get(kind, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            return
        self._last[kind] = now
        self._logger.log(min(level, logging.WARNING), message, *args)


def open_client(factory: Callable[..., Client], config: Mapping[str, Any], logger: logging.Logger) -> Client:
    """A client that logs to `logger`.

    Raises:
        SettingsError: librdkafka refuses a property. The message has the property's variable, not its value.
    """
    try:
        return factory(dict(config), logger=ClientLog(logger))
    except KafkaException as refusal:
        text = str(refusal.args[0]) if refusal.args else ""
        users = [name for name in config if name not in _OWN]
        names = [name for name in users if name in text] or users
        variables = ", ".join(sorted(map(_variable, names)))
        error = refusal.args[0] if refusal.args else None
        code = error.name() if isinstance(error, KafkaError) else "unknown"
        raise SettingsError(f"The Kafka client refuses its settings ({code}): check {variables}") from None


def _variable(name: str) -> str:
    """security.protocol → KAFKA_SECURITY_PROTOCOL."""
    return "KAFKA_" + re.sub(r"[.-]", "_", name).upper()

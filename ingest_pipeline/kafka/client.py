"""What every Kafka client of this package is set up with, and the mark its group commits bear."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from ..core.errors import SettingsError
from ..core.record import LEDGER_MARK, NextOffset

Client = TypeVar("Client")

_MIB = 1024 * 1024
_REPEAT_SECONDS = 30.0

# Ours, whatever the user says: positions live in PostgreSQL, and the client must never move one by itself.
_FIXED: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "allow.auto.create.topics": False,
    "statistics.interval.ms": 0,
    # We join no group, so these only bound how long close() waits for a coordinator that is away (else 45 s).
    "session.timeout.ms": 1500,
    "heartbeat.interval.ms": 500,
}

# Ours unless the user says otherwise.
_DEFAULTS: dict[str, Any] = {
    "isolation.level": "read_committed",
    "fetch.queue.backoff.ms": 2,  # librdkafka's 1000 stalls a reader that is faster than the network
    # A run's first request may go out before all of its partitions are in it, and an empty one is held for so long:
    # librdkafka's 500 made every other start half a second longer. An idle run asks 20 times a second.
    "fetch.wait.max.ms": 50,
    "queued.min.messages": 20_000,
    "socket.timeout.ms": 15_000,  # how late a frozen broker is noticed; librdkafka has 60000
    "log.connection.close": False,
}

_OURS = frozenset({*_FIXED, *_DEFAULTS, "client.id", "group.id", "error_cb", "on_commit"})

# Properties of a consumer that an AdminClient would only warn about.
_CONSUMER_ONLY = frozenset(
    {
        "check.crcs",
        "client.rack",
        "fetch.error.backoff.ms",
        "fetch.max.bytes",
        "fetch.message.max.bytes",
        "fetch.min.bytes",
        "fetch.queue.backoff.ms",
        "fetch.wait.max.ms",
        "isolation.level",
        "max.partition.fetch.bytes",
        "max.poll.interval.ms",
        "queued.max.messages.kbytes",
        "queued.min.messages",
    }
)


def ledger_mark(ledger_id: str) -> str:
    """The metadata of our group commits: they follow the ledger and are never a place to start from."""
    return LEDGER_MARK + ledger_id


def bootstrap_servers(kafka: Mapping[str, str]) -> str:
    """The brokers a user named, for messages to people."""
    return kafka.get("bootstrap.servers") or kafka.get("metadata.broker.list") or "(no bootstrap.servers)"


def topic_partition(topic: str, partition: int, place: NextOffset, metadata: str = "") -> TopicPartition:
    """A place as the client takes it; it refuses None for an epoch that is not known."""
    epoch = -1 if place.leader_epoch is None else place.leader_epoch
    return TopicPartition(topic, partition, place.next_offset, metadata, epoch)


def consumer_config(
    kafka: Mapping[str, str], group_id: str, batch_bytes: int, client_id: str = "ingest"
) -> dict[str, Any]:
    """Properties of a consumer that assigns itself and never resets, stores or commits an offset.

    Prefetched records are bounded by about `batch_bytes` (1 to 64 MiB) plus one fetch response.

    Args:
        kafka: the user's librdkafka properties, validated; they win over our defaults only.
        batch_bytes: BATCH_BYTES of the stream.
    """
    ahead = min(max(batch_bytes, _MIB), 64 * _MIB)
    sized = {
        "client.id": client_id,
        "queued.max.messages.kbytes": ahead // 1024,
        "fetch.max.bytes": min(ahead, 16 * _MIB),
    }
    return {**_DEFAULTS, **sized, **kafka, **_FIXED, "group.id": group_id}


def admin_config(kafka: Mapping[str, str], client_id: str = "ingest") -> dict[str, Any]:
    """Properties of a client that only asks. Asking for a topic must not create it."""
    asked = {name: value for name, value in kafka.items() if name not in _CONSUMER_ONLY}
    return {
        "client.id": client_id,
        # The client asks a broker that it is connected to, and asks a frozen one again until a question has been open
        # for this long. With librdkafka's 60000, no question got an answer for a minute (2.16, measured).
        "socket.timeout.ms": 2_000,
        "log.connection.close": False,
        **asked,
        "allow.auto.create.topics": False,
        "statistics.interval.ms": 0,
    }


def isolation_level(kafka: Mapping[str, str]) -> str:
    """The isolation level that `consumer_config` gives for these properties."""
    return str(kafka.get("isolation.level", _DEFAULTS["isolation.level"]))


class ClientLog:
    """librdkafka's log lines → a stdlib logger, each kind at most once in 30 s, and never above WARNING.

    The client retries by itself and reports a failed connection ten times a second; what a person must act on
    is raised as an error of ours.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._last: dict[tuple[Any, ...], float] = {}

    def log(self, level: int, message: str, *args: Any) -> None:
        """Called by the client as `log(level, "%s [%s] %s", facility, client, text)`."""
        kind = (level, *args[:1])
        now = time.monotonic()
        if now - self._last.get(kind, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            return
        self._last[kind] = now
        self._logger.log(min(level, logging.WARNING), message, *args)


def open_client(factory: Callable[..., Client], config: Mapping[str, Any], logger: logging.Logger) -> Client:
    """A client with its log on `logger`.

    Raises:
        SettingsError: librdkafka refuses a property. The message has the variable that sets it, not its value.
    """
    try:
        return factory(dict(config), logger=ClientLog(logger))
    except KafkaException as refused:
        text = str(refused.args[0]) if refused.args else ""
        own = [name for name in config if name not in _OURS]  # what the user has set
        names = [name for name in own if name in text] or own
        variables = ", ".join(sorted(map(_variable, names)))
        error = refused.args[0] if refused.args else None
        code = error.name() if isinstance(error, KafkaError) else "unknown"
        raise SettingsError(f"The Kafka client refuses its settings ({code}): check {variables}") from None


def _variable(name: str) -> str:
    """The variable that sets a property: security.protocol → KAFKA_SECURITY_PROTOCOL."""
    return "KAFKA_" + re.sub(r"[.-]", "_", name).upper()

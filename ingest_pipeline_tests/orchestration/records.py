"""Records for the tests of runs, and a producer that knows they have arrived."""

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from confluent_kafka import KafkaError, Producer

Headers = Sequence[tuple[str, bytes | None]]


class Record(NamedTuple):
    """`partition` -1: Kafka's choice. `age_seconds`: of its Kafka timestamp."""

    value: bytes | None
    partition: int = -1
    key: bytes | None = None
    headers: Headers = ()
    age_seconds: float = 0.0


def temperatures(count: int, partitions: int = 2, first: int = 0) -> list[Record]:
    """Good readings, dealt to the partitions in turn."""
    value = b'{"device_id": "dev-%04d", "temperature": 21.53, "timestamp": "2026-01-01T00:00:00.123456+00:00"}'
    return [Record(value % number, number % partitions) for number in range(first, first + count)]


def prices(count: int, partitions: int = 2, first: int = 0) -> list[Record]:
    value = b'{"symbol": "S%d", "price": 101.25, "timestamp": "2026-01-01T00:00:00Z"}'
    return [Record(value % number, number % partitions) for number in range(first, first + count)]


def with_broken(records: Sequence[Record], every: int) -> list[Record]:
    """The same records, each `every`-th of them no JSON."""
    return [
        record._replace(value=b'{"broken') if number % every == every - 1 else record
        for number, record in enumerate(records)
    ]


_spare: dict[str, Producer] = {}
"""The address of a broker → a new producer that waits for its producer id, which takes half a second."""


def ordered_producer(bootstrap_servers: str) -> Producer:
    """A producer that has written nothing. The same call prepares the next one."""
    settings = {
        "bootstrap.servers": bootstrap_servers,
        "enable.idempotence": True,  # else a retry changes the order
        "queue.buffering.max.messages": 1_000_000,
        "log_level": 0,  # a spare producer may outlive its broker
    }
    producer = _spare.pop(bootstrap_servers, None) or Producer(settings)
    _spare.clear()
    _spare[bootstrap_servers] = Producer(settings)
    return producer


def produce(bootstrap_servers: str, topic: str, records: Iterable[Record]) -> None:
    """Write the records in order. On return the broker has acknowledged every one."""
    producer = ordered_producer(bootstrap_servers)
    refused: list[KafkaError] = []
    for number, record in enumerate(records):
        producer.produce(
            topic,
            record.value,
            record.key,
            partition=record.partition,
            headers=list(record.headers),
            timestamp=round((time.time() - record.age_seconds) * 1000),
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
        if number % 10_000 == 9_999:
            producer.poll(0)
    assert producer.flush(60) == 0
    assert refused == []

"""A record batch that is damaged on the broker's disk: it is named, and an operator gets the stream past it."""

import re
import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer

from ingest_pipeline_tests.orchestration.bench import Bench, failure
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.conftest import TEMPERATURE
from ingest_pipeline_tests.orchestration.records import Record, temperatures
from ingest_pipeline_tests.orchestration.test_data_loss import ACCOUNTING, GAPS, assert_still, stored
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.kafka_jars import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(400)]
Make = Callable[..., Bench]
_HEADER_BYTES = 61
"""Of a record batch, before its compressed records."""


def produce_batch(servers: str, topic: str, records: Sequence[Record]) -> None:
    """One compressed batch."""
    producer = Producer({"bootstrap.servers": servers, "compression.type": "gzip", "linger.ms": 500})
    for record in records:
        producer.produce(topic, record.value, partition=0)
    assert producer.flush(30) == 0


def damage(log: Path, offset: int) -> None:
    """Spoil the records of the batch that begins at this offset. A batch is base offset (8 bytes), length (4), rest."""
    content = bytearray(log.read_bytes())
    at = 0
    while (batch := struct.unpack(">qi", content[at : at + 12]))[0] != offset:
        at += 12 + batch[1]
    for index in range(at + _HEADER_BYTES + 4, at + _HEADER_BYTES + 20):
        content[index] ^= 0xFF
    log.write_bytes(content)


def test_an_operator_gets_past_a_batch_that_the_client_cannot_read(make_bench: Make, own_kafka: RealKafka) -> None:
    if not isinstance(own_kafka, KafkaServer):
        pytest.skip(f"{own_kafka.description} keeps its files where a test cannot damage them")
    topic, servers = f"temperature-{uuid.uuid4().hex[:8]}", own_kafka.bootstrap_servers
    own_kafka.create_topic(topic, 1)
    streams = [replace(TEMPERATURE, topic=topic)]
    bench = make_bench(streams=streams, KAFKA_BOOTSTRAP_SERVERS=servers, RETRY_SECONDS="1")
    for first in (0, 5, 10):
        produce_batch(servers, topic, temperatures(5, first=first))
    own_kafka.stop()
    (log,) = (own_kafka.folder / "logs" / f"{topic}-0").glob("*.log")
    damage(log, 5)
    own_kafka.start()

    words = "the record batch at offset 5 is corrupt, the client cannot read it"
    assert words in failure(bench.by_sensor())
    assert [offset for offset, _ in stored(bench)] == list(range(5))
    assert_still(bench, words)
    assert "name the offset behind it with --from" in ingest(bench, "accept-loss", "temperature", "--yes", code=1)
    ingest(bench, "accept-loss", "temperature", "--dismiss")
    assert words in failure(bench.by_sensor()), "it is read again, and is as corrupt as before"
    again = make_bench(streams=streams, ON_DATA_LOSS="continue", **bench.environ)
    assert words in failure(again.by_sensor()), "nobody but an operator knows where the batch ends"

    message = ingest(bench, "status", code=2)
    command = re.search(r"To go on: ingest (.*) --from OFFSET, the offset behind the batch", message)
    assert command is not None, message
    printed = ingest(bench, *command[1].split(), "--yes", "--from", "10")
    assert "offsets 5 to 9 (5) are recorded as lost. Reading continues at 10" in printed
    bench.drain()
    assert [offset for offset, _ in stored(bench)] == [*range(5), *range(10, 15)]
    assert bench.query(GAPS) == [(0, 1, 5, 10, "unreadable")]
    assert bench.query(ACCOUNTING) == [True]
    own_kafka.delete_topic(topic)

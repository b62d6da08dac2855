"""A look at a topic's records while a leader does not answer says which partitions it left out."""

from types import SimpleNamespace
from typing import Any

import pytest

from ingest_pipeline.cli.stream_from_topic import _remarks
from ingest_pipeline.core.errors import KafkaUnavailable, SettingsError
from ingest_pipeline.operations.sample import sample_of, unknown_stream
from ingest_pipeline.testing.broker import MemoryBroker
from ingest_pipeline.testing.clock import SettableClock
from ingest_pipeline.testing.source import MemorySource, MemoryTopic

TOPIC = "readings"
SILENT = "partition 1: its leader does not answer, its state is unknown"


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker({TOPIC: 2})


def clients(broker: MemoryBroker) -> Any:
    clock = SettableClock()
    return SimpleNamespace(
        clock=clock,
        topic=lambda stream: MemoryTopic(broker, stream.topic),
        source=lambda streams, ledger_id: MemorySource(broker, clock),
    )


def test_the_partitions_of_a_silent_leader_are_named(broker: MemoryBroker) -> None:
    for partition in (0, 1):
        broker.append(TOPIC, partition, b'{"level": 1}')
    sample = sample_of(clients(broker), unknown_stream(TOPIC), 10)
    assert (sample.records, _remarks(TOPIC, sample)) == (2, ["readings: the types come from 2 records"])
    broker.set_leader_away(TOPIC, 1, True)
    sample = sample_of(clients(broker), unknown_stream(TOPIC), 10)
    assert (sample.records, _remarks(TOPIC, sample)[1:]) == (1, [f"Not read: {SILENT}"])


def test_a_topic_is_empty_only_if_every_leader_answers(broker: MemoryBroker) -> None:
    broker.append(TOPIC, 1, b'{"level": 1}')
    broker.set_leader_away(TOPIC, 1, True)
    with pytest.raises(KafkaUnavailable, match=SILENT):
        sample_of(clients(broker), unknown_stream(TOPIC), 10)
    broker.set_leader_away(TOPIC, 1, False)
    broker.delete_records(TOPIC, 1, 1)
    with pytest.raises(SettingsError, match="no record with a value yet"):
        sample_of(clients(broker), unknown_stream(TOPIC), 10)

"""The simulator's count equals the number of records in the broker."""

import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from ingest_pipeline.core.errors import TopicMissing
from ingest_pipeline.demo.simulate import Plan, ensure_topics, simulate
from ingest_pipeline.local.broker import EmbeddedBroker
from ingest_pipeline_tests.servers.broker import RealKafka

ROOT = Path(__file__).parents[2]
TOPICS = ("temperature", "price")


@pytest.fixture
def kafka() -> Mapping[str, str]:
    """A broker for one test, because the topics' names are fixed."""
    with EmbeddedBroker(TOPICS) as broker:
        yield {"bootstrap.servers": broker.bootstrap_servers}


def records_in(kafka: Mapping[str, str], topic: str) -> int:
    consumer = Consumer({**kafka, "group.id": "count", "log_level": 0})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return sum(
            consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1] for partition in partitions
        )
    finally:
        consumer.close()


@pytest.mark.parametrize("rate", [0, 20_000])
def test_what_it_counts_is_in_the_topics(kafka: Mapping[str, str], rate: float) -> None:
    tally = simulate(kafka, Plan(rate=rate, records=20_000, broken_every=100, tombstone_every=1000))
    assert {topic: count.acknowledged for topic, count in tally.topics.items()} == dict.fromkeys(TOPICS, 10_000)
    assert {topic: count.broken for topic, count in tally.topics.items()} == dict.fromkeys(TOPICS, 100)
    assert 0 < sum(count.tombstones for count in tally.topics.values()) <= 20
    assert tally.failed == tally.unsettled == 0
    assert {topic: records_in(kafka, topic) for topic in TOPICS} == dict.fromkeys(TOPICS, 10_000)


def test_a_rate_is_kept(kafka: Mapping[str, str]) -> None:
    tally = simulate(kafka, Plan(rate=2000, seconds=1))
    assert tally.acknowledged == 2000
    assert tally.seconds >= 0.99


def test_the_simulator_stops_at_its_limit(kafka: Mapping[str, str]) -> None:
    over = threading.Event()
    tally = simulate(kafka, Plan(rate=0), over.is_set, lambda seen: over.set() if seen.acknowledged > 1000 else None)
    assert tally.acknowledged == sum(records_in(kafka, topic) for topic in TOPICS) > 1000


def run_ingest(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "ingest_pipeline.cli.main", "simulate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


def test_the_command_sends_and_says_what_it_sent(kafka: Mapping[str, str], tmp_path: Path) -> None:
    ran = run_ingest("--rate", "0", "--records", "3000", KAFKA_BOOTSTRAP_SERVERS=kafka["bootstrap.servers"])
    assert ran.returncode == 0, ran.stderr
    assert "3,000 records in" in ran.stdout
    assert "price: 1,500 acknowledged" in ran.stdout


def test_the_command_says_how_far_it_is(kafka: Mapping[str, str]) -> None:
    ran = run_ingest("--rate", "100", "--records", "800", KAFKA_BOOTSTRAP_SERVERS=kafka["bootstrap.servers"])
    assert re.search(r"^sent: [\d,]+ of 800, \d+/s, \d+ s left", ran.stderr, re.MULTILINE)


def test_the_command_refuses_a_topic_it_does_not_know(tmp_path: Path) -> None:
    ran = run_ingest("--topics", "humidity")
    assert ran.returncode == 1
    assert (
        ran.stderr.splitlines()[0] == "Error: only these topics can be simulated: temperature, price (not 'humidity')"
    )


def test_a_missing_topic_is_created_only_on_demand(kafka_server: RealKafka, topic: Callable[..., str]) -> None:
    kafka = {"bootstrap.servers": kafka_server.bootstrap_servers}
    there, missing = topic("there"), f"missing-{uuid.uuid4().hex[:8]}"
    with pytest.raises(TopicMissing, match=f"has no topic {missing}: create it with --create-topics"):
        ensure_topics(kafka, [there, missing])
    assert ensure_topics(kafka, [there, missing], 3) == [missing]
    kafka_server.wait_for_leaders(missing)
    assert len(kafka_server.admin.list_topics(missing, timeout=10).topics[missing].partitions) == 3
    assert ensure_topics(kafka, [there, missing]) == []
    kafka_server.delete_topic(missing)

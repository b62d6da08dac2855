"""Observations of a topic by its stream's sensor, on real Kafka and PostgreSQL."""

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg
import pytest
from confluent_kafka import Producer

from ingest_pipeline.core.errors import KafkaUnavailable
from ingest_pipeline.orchestration.asset_keys import topic_key
from ingest_pipeline.orchestration.build import definitions_with
from ingest_pipeline.orchestration.sensor.topic_observation import OBSERVE_SECONDS
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.records import temperatures
from ingest_pipeline_tests.orchestration.test_data_loss import delete_before
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]


def later(bench: Bench) -> None:
    """Set the sensor's clock to the next time that a look is due."""
    bench.clock.seconds += OBSERVE_SECONDS


def observed(bench: Bench) -> list[dict[str, Any]]:
    """The plain values of what one tick told of the topic."""
    events = bench.tick().asset_events
    assert all(isinstance(event, dg.AssetObservation) for event in events)
    assert {event.asset_key for event in events} <= {topic_key(bench.context)}
    return [{name: value.value for name, value in event.metadata.items() if name != "partitions"} for event in events]


def test_the_figures_are_kafkas_and_the_ledgers(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=1)
    bench.produce(temperatures(5, partitions=1))
    assert observed(bench) == [{"lag": 5, "blocked_records": 0}]
    bench.drain()
    bench.produce(temperatures(2, partitions=1))
    delete_before(kafka_server, bench.stream.topic, 3)
    assert observed(bench) == []
    later(bench)
    assert observed(bench) == [{"lag": 2, "headroom_records": 2, "blocked_records": 0}]
    later(bench)
    assert observed(bench) == []


def test_an_open_transaction_and_its_end_are_reported(make_bench: Make) -> None:
    """Behind it no end moves, so that the stream looks caught up."""
    bench = make_bench(partitions=1)
    bench.produce(temperatures(5, partitions=1))
    bench.drain()
    assert [found["blocked_records"] for found in observed(bench)] == [0]
    producer = Producer({"bootstrap.servers": bench.bootstrap_servers, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(bench.stream.topic, temperatures(1)[0].value, partition=0)
    producer.flush()
    assert bench.tick().skip_message == "caught up: lag 0"
    later(bench)
    assert [found["blocked_records"] for found in observed(bench)] == [1]
    producer.abort_transaction()

    def released() -> bool:
        later(bench)
        return [found["blocked_records"] for found in observed(bench)] == [0]

    wait_for("the transaction's markers", released)


def test_the_limit_outlives_the_code_server(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(4))
    assert len(observed(bench)) == 1
    bench.definitions = definitions_with(bench.clients, bench.streams)  # a new process knows no more than the cursor
    bench.produce(temperatures(4))
    assert observed(bench) == []


def test_the_key_has_the_projects_prefix(make_bench: Make) -> None:
    bench = make_bench()
    bench.definitions = definitions_with(bench.clients, bench.streams, key_prefix=["shop"])
    (event,) = bench.tick().asset_events
    assert event.asset_key == topic_key(replace(bench.context, key_prefix=("shop",)))
    assert event.asset_key in bench.definitions.resolve_all_asset_keys()


def test_a_tick_without_a_look_asks_kafka_nothing_more(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(4))
    bench.drain()
    asked: Counter[str] = Counter()

    def count(question: str, answer: Callable[..., Any], *what: Any) -> Any:
        asked[question] += not what or bool(what[0])  # no request is made for no partitions
        return answer(*what)

    for question in ("start_offsets", "high_watermarks", "offsets_at"):
        bench.clients.changes["topic"][question] = partial(count, question)
    for question in ("identities", "end_offsets"):
        bench.clients.changes["topics"][question] = partial(count, question)
    bench.tick()
    assert asked["high_watermarks"] == 1
    asked.clear()
    for _ in range(3):
        bench.tick()
    assert +asked == {"identities": 3, "end_offsets": 3}
    asked.clear()
    later(bench)
    bench.tick()
    assert asked["high_watermarks"] == asked["start_offsets"] == 1


def test_an_outage_during_the_look_holds_no_launch_back(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(4))

    def refuse(*_: object) -> None:
        raise KafkaUnavailable("away")

    bench.clients.changes["topic"]["high_watermarks"] = refuse
    outcome = bench.tick()
    assert (len(outcome.run_requests), outcome.asset_events) == (1, [])
    bench.clients.changes.clear()
    assert len(observed(bench)) == 1

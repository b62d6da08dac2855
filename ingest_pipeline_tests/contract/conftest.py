"""One suite, several brokers: a test that asks for `world` runs on each of them."""

from collections.abc import Iterator

import pytest

from ingest_pipeline_tests.contract.kafka_worlds import MemoryWorld, MockWorld, RealWorld, World


@pytest.fixture(params=["memory", "mock", pytest.param("kafka", marks=pytest.mark.kafka)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """The in-memory broker, librdkafka's mock cluster, Apache Kafka."""
    made: World
    if request.param == "memory":
        made = MemoryWorld()
    elif request.param == "mock":
        made = MockWorld(request.getfixturevalue("embedded_broker").bootstrap_servers)
    else:
        made = RealWorld(request.getfixturevalue("kafka_server"))
    yield made
    made.close()

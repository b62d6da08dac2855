"""A stream on two brokers, with one broker dead, frozen or unreachable. No record is lost or doubled, no loss is noted,
and the stream reads the partitions of the other broker meanwhile.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
import pytest

from ingest_pipeline.core.errors import KafkaUnavailable
from ingest_pipeline.core.record import TopicIdentity
from ingest_pipeline.kafka.admin import Admin
from ingest_pipeline.kafka.topic import KafkaTopic
from ingest_pipeline.local.server import HOST
from ingest_pipeline.operations.questions import KAFKA_SECONDS
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.checks import NO_LOSS, UP_TO_DATE
from ingest_pipeline_tests.faults.acknowledged import Acknowledged, assert_exactly_once, assert_no_loss
from ingest_pipeline_tests.orchestration.bench import Bench, failure, metadata, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.conftest import TEMPERATURE
from ingest_pipeline_tests.servers.kafka_cluster import KafkaCluster
from ingest_pipeline_tests.servers.proxy import TcpProxy

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(400)]
Make = Callable[..., Bench]
REPLICATED = [[1, 2], [2, 1], [1, 2], [2, 1]]
ALONE = [[1], [2], [1], [2]]
SILENT = "partitions 0, 2: their leaders do not answer, their state is unknown"
ALL, OF_SECOND = (0, 1, 2, 3), (1, 3)
"""All partitions, and those with broker 2 as preferred leader."""


@dataclass
class Kafka:
    """Two brokers, and the proxies between them and the product. The producers connect directly."""

    cluster: KafkaCluster
    proxies: dict[int, TcpProxy]

    def heal(self) -> None:
        for proxy in self.proxies.values():
            proxy.let_pass()
        self.cluster.heal()


@pytest.fixture(scope="module")
def kafka_of_module(kafka_cluster: Callable[[int], KafkaCluster]) -> Iterator[Kafka]:
    cluster = kafka_cluster(2)
    with ExitStack() as cleanup:
        proxies = {b: cleanup.enter_context(TcpProxy(cluster.outside_port(b))) for b in cluster.outside}
        cluster.outside.update({broker: f"{HOST}:{proxy.port}" for broker, proxy in proxies.items()})
        cluster.start()
        yield Kafka(cluster, proxies)


@pytest.fixture
def kafka(kafka_of_module: Kafka) -> Iterator[Kafka]:
    yield kafka_of_module
    kafka_of_module.heal()


@pytest.fixture
def begin(kafka: Kafka, make_bench: Make) -> Callable[..., tuple[Bench, Acknowledged]]:
    """``begin(replicas, **environ)``: a stream on a topic of its own, with 20 records in each of four partitions."""

    def make(replicas: list[list[int]], **environ: str) -> tuple[Bench, Acknowledged]:
        topic = f"readings-{uuid.uuid4().hex[:8]}"
        kafka.cluster.create_topic(topic, replicas=replicas)
        lead_by_first_replicas(kafka.cluster, topic, replicas)
        acknowledged = Acknowledged(kafka.cluster.bootstrap_servers, topic)
        acknowledged.write(20, ALL)
        servers = ",".join(kafka.cluster.outside.values())
        location = make_bench([replace(TEMPERATURE, topic=topic)], KAFKA_BOOTSTRAP_SERVERS=servers, **environ)
        return location, acknowledged

    return make


def lead_by_first_replicas(cluster: KafkaCluster, topic: str, replicas: list[list[int]]) -> None:
    """A broker that was away when the topic was created has lost its partitions to the other one. Kafka gives them back
    after five minutes, and this function at once.
    """

    def led() -> bool:
        cluster.elect_preferred(topic)
        return cluster.leaders(topic) == {partition: brokers[0] for partition, brokers in enumerate(replicas)}

    wait_for("the preferred leaders", led, every=0.5)


def tick(location: Bench) -> str:
    """Run one sensor tick and the requested runs. Returns the message of the tick."""
    try:
        outcome = location.tick()
    except dg.Failure as failure:
        return str(failure.description)
    for request in outcome.run_requests or []:
        more = {name: value for name, value in request.tags.items() if name not in (tags.STREAM, tags.SHARD)}
        location.by_sensor(request.tags[tags.SHARD], **more)
    return outcome.skip_message or "launched"


def until(location: Bench, condition: Callable[[], bool], what: str, seconds: float = 120) -> list[str]:
    """Repeat ticks and runs until the condition holds. Returns the messages, none of which may name a loss."""
    messages: list[str] = []

    def so() -> bool:
        messages.append(tick(location))
        assert_no_loss(location)
        return condition()

    wait_for(f"{what}; the sensor said {messages}", so, seconds, every=0.5)
    return messages


def until_stored(location: Bench, count: int) -> list[str]:
    return until(location, lambda: stored(location) == count, f"{count} rows")


def during(location: Bench, strike: Callable[[], None], seconds: float = 120) -> None:
    """Repeat ticks and runs while `strike` runs in a thread."""
    with ThreadPoolExecutor(1) as pool:
        struck = pool.submit(strike)
        until(location, struck.done, "the end of the fault", seconds)
        struck.result()


def stored(location: Bench) -> int:
    """Number of rows, 0 before the table exists."""
    return location.rows() if location.query("select to_regclass('temperature')") != [None] else 0


def status(location: Bench, code: int) -> dict[str, Any]:
    (stream,) = json.loads(ingest(location, "status", "--json", code=code))
    return dict(stream)


def lags(location: Bench, code: int) -> dict[int, int | None]:
    """Partition → lag as `ingest status` shows it."""
    return {partition["partition"]: partition["lag"] for partition in status(location, code)["partitions"]}


def test_a_dead_leader_is_no_loss_where_no_run_is_at_work(
    kafka: Kafka, begin: Callable[..., tuple[Bench, Acknowledged]], make_bench: Make
) -> None:
    location, acknowledged = begin(ALONE)
    until_stored(location, 80)
    kafka.cluster.brokers[1].kill()
    acknowledged.write(3, OF_SECOND)
    for _ in range(2):  # at first its leadership stands in the metadata still, later there is no leader
        outcome = location.tick()
        assert [request.tags[tags.SHARD] for request in outcome.run_requests or []] == ["0/1"]
        wait_for("the broker to be missed", lambda: kafka.cluster.leaders(location.stream.topic)[0] == -1)
    by_hand = location.by_hand()
    assert by_hand.success, failure(by_hand)
    assert metadata(by_hand, location.stream)["not_drained"] == SILENT
    assert location.tick().skip_message == f"caught up: lag 0; {SILENT}"

    found = status(location, code=1)
    assert (found["level"], SILENT in found["messages"]) == ("degraded", True)
    figures = [(partition["end"], partition["lag"]) for partition in found["partitions"]]
    assert figures == [(None, None), (23, 0), (None, None), (23, 0)]
    results = location.check_results()
    assert results[NO_LOSS].passed and SILENT in results[NO_LOSS].description
    assert not results[UP_TO_DATE].grave
    printed = ingest(location, "accept-loss", "temperature", "--yes")
    assert SILENT in printed and "nothing to accept" in printed
    direct = {"KAFKA_BOOTSTRAP_SERVERS": kafka.cluster.bootstrap_servers, "ON_DATA_LOSS": "continue"}
    going_on = make_bench(location.streams, **{**location.environ, **direct})
    assert SILENT in ingest(going_on, "check", code=1)
    assert going_on.by_hand().success
    assert_no_loss(location)
    assert location.positions() == {0: 20, 1: 23, 2: 20, 3: 23}

    kafka.heal()
    acknowledged.write(20, ALL)
    until_stored(location, 166)
    assert_exactly_once(location, acknowledged)
    assert lags(location, code=0) == dict.fromkeys(ALL, 0)


def test_rows_arrive_from_the_replica_that_follows_a_killed_leader(
    kafka: Kafka, begin: Callable[..., tuple[Bench, Acknowledged]]
) -> None:
    location, acknowledged = begin(REPLICATED)
    until_stored(location, 80)
    acknowledged.write(20, ALL)
    kafka.cluster.brokers[1].kill()

    def strike() -> None:
        acknowledged.write(20, ALL)
        wait_for("all rows", lambda: stored(location) == 240)
        kafka.heal()
        acknowledged.write(20, ALL)

    during(location, strike)
    until_stored(location, 320)
    assert_exactly_once(location, acknowledged)


def test_a_stream_that_begins_without_a_leader_gives_its_partitions_no_position(
    kafka: Kafka, begin: Callable[..., tuple[Bench, Acknowledged]]
) -> None:
    location, acknowledged = begin(ALONE)
    kafka.cluster.brokers[1].kill()

    def strike() -> None:
        wait_for("the rows of the living broker", lambda: stored(location) == 40)
        assert set(location.positions()) == set(OF_SECOND)
        kafka.heal()
        acknowledged.write(20, ALL)

    during(location, strike)
    until_stored(location, 160)
    assert_exactly_once(location, acknowledged)


def test_a_stream_that_begins_at_the_end_waits_for_every_leader(
    kafka: Kafka, begin: Callable[..., tuple[Bench, Acknowledged]]
) -> None:
    location, acknowledged = begin(ALONE, START_FROM="latest")
    kafka.cluster.brokers[1].kill()
    for _ in range(2):
        tick(location)
    refused = location.by_hand()
    assert not refused.success
    assert SILENT in failure(refused) and "START_FROM" in failure(refused)
    assert location.positions() == {}
    assert_no_loss(location)
    kafka.heal()
    until(location, lambda: set(location.positions()) == set(ALL), "positions")
    assert location.rows() == 0
    acknowledged.write(20, ALL)
    until_stored(location, 80)
    assert location.query("select min(kafka_offset), max(kafka_offset), count(*) from temperature") == [(20, 39, 80)]
    assert_no_loss(location)


@pytest.mark.parametrize("known_dead", [True, False])
def test_a_leader_that_is_frozen_for_longer_than_the_socket_time_out_costs_nothing(
    kafka: Kafka, begin: Callable[..., tuple[Bench, Acknowledged]], known_dead: bool
) -> None:
    """The leader has no other replica and freezes while a run drains.

    `known_dead`: the controller notices, and the partitions have no leader for a while.
    """
    location, acknowledged = begin(ALONE, KAFKA_SOCKET_TIMEOUT_MS="2000", RUN_IDLE_SECONDS="10")
    if not known_dead:
        kafka.cluster.controllers[0].freeze()

    def strike() -> None:
        wait_for("the first rows", lambda: stored(location) == 80)
        kafka.cluster.brokers[1].freeze()
        acknowledged.write(20, OF_SECOND)
        wait_for("the rows of the other broker", lambda: stored(location) == 120)
        time.sleep(6)  # three times the socket time-out
        kafka.cluster.brokers[1].thaw()
        acknowledged.write(20, ALL)

    during(location, strike)
    until_stored(location, 200)
    assert_exactly_once(location, acknowledged)


def test_a_frozen_broker_that_the_client_is_connected_to_is_given_up_soon(kafka: Kafka) -> None:
    """After broker 2 restarts, the client has one connection, to broker 1, and asks only that broker for metadata."""
    kafka.cluster.create_topic("asked", replicas=REPLICATED)
    admin = Admin({"bootstrap.servers": kafka.cluster.bootstrap_servers})
    topic = KafkaTopic(admin, "asked")
    before = topic.identity()
    kafka.cluster.brokers[2].stop()
    kafka.cluster.restart(2)
    wait_for("an answer of broker 1", lambda: answer(topic) == before)
    kafka.cluster.brokers[1].freeze()
    answers = [answer(topic) for _ in range(3)]
    assert before in answers
    admin.close()


def answer(topic: KafkaTopic) -> TopicIdentity | None:
    try:
        return topic.identity()
    except KafkaUnavailable:
        return None


def test_a_broker_that_only_the_product_cannot_reach_holds_back_its_own_partitions(
    kafka: Kafka, begin: Callable[..., tuple[Bench, Acknowledged]]
) -> None:
    location, acknowledged = begin(REPLICATED)
    until_stored(location, 80)
    kafka.proxies[2].black_hole()
    acknowledged.write(20, ALL)

    def strike() -> None:
        wait_for("the rows of the other broker", lambda: stored(location) == 120)
        assert location.positions() == {0: 40, 1: 20, 2: 40, 3: 20}
        assert lags(location, code=1) == {0: 0, 1: None, 2: 0, 3: None}
        assert_commands_name_the_silence(location, kafka.cluster.outside)
        kafka.proxies[2].let_pass()

    during(location, strike)
    until_stored(location, 160)
    assert_exactly_once(location, acknowledged)


def assert_commands_name_the_silence(location: Bench, addresses: Mapping[int, str]) -> None:
    """While broker 2 is silent."""
    problem = f"{addresses[2]} accepts a connection and answers nothing"
    assert f"KAFKA_BOOTSTRAP_SERVERS: {problem}" in ingest(location, "check", code=1)
    servers = f"kafka.invalid:9092,{addresses[1]}"
    elsewhere = replace(location, environ={**location.environ, "KAFKA_BOOTSTRAP_SERVERS": servers})
    shown = ingest(elsewhere, "check", code=1)
    assert "kafka.invalid:9092 does not resolve" in shown and problem in shown
    not_read = "Not read: partitions 1, 3: their leaders do not answer"
    assert not_read in ingest(location, "dead-letters", "peek", location.stream.name)
    assert not_read in ingest(location, "stream-from-topic", location.stream.topic)


def test_a_question_to_a_broker_that_has_just_become_silent_goes_to_the_other_one(kafka: Kafka) -> None:
    """The clients are connected to both brokers."""
    name = f"asked-{uuid.uuid4().hex[:8]}"
    kafka.cluster.create_topic(name, replicas=ALONE)
    lead_by_first_replicas(kafka.cluster, name, ALONE)
    servers = {"bootstrap.servers": ",".join(kafka.cluster.outside.values())}
    admins = [Admin(servers) for _ in range(10)]
    topics = [KafkaTopic(admin, name, timeout_seconds=KAFKA_SECONDS) for admin in admins]
    before = topics[0].identity()
    for topic in topics:
        wait_for("both leaders", lambda topic=topic: set(topic.end_offsets(ALL)) == set(ALL))
    kafka.proxies[2].black_hole()
    with ThreadPoolExecutor(len(topics)) as pool:
        assert list(pool.map(answer, topics)) == [before] * len(topics)
        assert [set(ends) for ends in pool.map(lambda topic: topic.end_offsets(ALL), topics)] == [{0, 2}] * len(topics)
    for admin in admins:
        admin.close()

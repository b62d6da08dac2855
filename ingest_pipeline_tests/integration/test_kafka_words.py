"""Messages about trouble with Kafka: unresolvable advertised addresses, TLS on one side only, a group in use."""

import logging
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.kafka.admin import Admin
from ingest_pipeline.kafka.source import KafkaSource
from ingest_pipeline.kafka.topics import KafkaTopics
from ingest_pipeline.local.server import HOST, free_port
from ingest_pipeline.operations.check_kafka import kafka_findings
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.settings import load_settings
from ingest_pipeline_tests.samples import READING
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.kafka_cluster import KafkaCluster

pytestmark = pytest.mark.slow


def lines(topic: str = "reading", **environ: str) -> list[tuple[bool, str]]:
    """The lines of `ingest check` about Kafka."""
    clients = Clients(load_settings(["reading"], environ))
    stream = Stream("reading", READING.event, topic=topic)
    try:
        return [(finding.ok, finding.message) for finding in kafka_findings(StreamContext(stream, clients))]
    finally:
        clients.close()


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    """A port that speaks TLS but not Kafka's protocol."""
    key, certificate, port = tmp_path / "key.pem", tmp_path / "certificate.pem", free_port()
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    command = ["openssl", "s_server", "-accept", f"{HOST}:{port}", "-key", key, "-cert", certificate]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        while b"ACCEPT" not in server.stdout.readline():
            assert server.poll() is None
        yield port
        server.kill()


def test_a_tls_port_that_is_spoken_to_in_plain_text(tls_port: int) -> None:
    ((ok, message),) = lines(KAFKA_BOOTSTRAP_SERVERS=f"{HOST}:{tls_port}")
    assert not ok
    assert f"{HOST}:{tls_port} uses TLS: set KAFKA_SECURITY_PROTOCOL to SSL" in message


@pytest.mark.parametrize(
    "environ",
    [
        {"KAFKA_SECURITY_PROTOCOL": "SSL"},
        {
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_SASL_USERNAME": "a",
            "KAFKA_SASL_PASSWORD": "b",
        },
    ],
)
def test_a_plain_port_that_is_spoken_to_in_tls(kafka_server: RealKafka, environ: dict[str, str]) -> None:
    address = kafka_server.bootstrap_servers
    ((ok, message),) = lines(KAFKA_BOOTSTRAP_SERVERS=address, **environ)
    assert not ok
    assert f"{address} does not use TLS" in message


def test_unreachable_addresses_have_messages_of_their_own() -> None:
    refused = f"{HOST}:{free_port()}"
    with socket.create_server((HOST, 0)) as server:
        silent = f"{HOST}:{server.getsockname()[1]}"
        ((ok, message),) = lines(KAFKA_BOOTSTRAP_SERVERS=f"{refused},kafka.invalid:9092,{silent}")
    assert not ok
    assert f"KAFKA_BOOTSTRAP_SERVERS: {silent} accepts a connection and answers nothing" in message
    assert f"KAFKA_BOOTSTRAP_SERVERS: {refused} cannot be reached" in message
    assert "KAFKA_BOOTSTRAP_SERVERS: kafka.invalid:9092 does not resolve on this machine" in message
    assert "\n" not in message


def test_an_advertised_address_that_leads_nowhere_is_named(kafka_cluster: Callable[[int], KafkaCluster]) -> None:
    """test_advertised_address.py has one that does not resolve."""
    cluster = kafka_cluster(1)
    cluster.outside[1] = f"{HOST}:1"
    with cluster:
        cluster.create_topic("reading", 2)
        ((ok, message),) = lines(KAFKA_BOOTSTRAP_SERVERS=f"{HOST}:{cluster.outside_port(1)}")
    assert not ok
    assert f"{HOST}:1 cannot be reached" in message
    assert "advertised.listeners" in message


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_in_use_is_called_that_and_reading_goes_on(
    kafka_server: RealKafka, topic: Callable[..., str], protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = topic("reading", partitions=1)
    kafka = {"bootstrap.servers": kafka_server.bootstrap_servers}
    member = Consumer(kafka | {"group.id": f"group-{name}", "group.protocol": protocol, "log_level": "0"})
    source = KafkaSource(
        kafka,
        KafkaTopics(Admin(kafka)),
        {name: f"group-{name}"},
        ledger_id="l",
        batch_bytes=1 << 20,
        logger=logging.getLogger("words"),
    )
    try:
        member.subscribe([name])
        deadline = time.monotonic() + 60
        while not member.assignment():
            member.poll(0.1)
            assert time.monotonic() < deadline
        source.assign(name, {0: NextOffset(0)})
        source.acknowledge(name, {0: NextOffset(0)})
        while "another consumer is a member of this group" not in caplog.text:
            source.read(1, 0.1)
            member.poll(0)
            assert time.monotonic() < deadline
        assert f"group group-{name}" in caplog.text
        assert "Ingestion continues" in caplog.text
    finally:
        source.close()
        member.close()

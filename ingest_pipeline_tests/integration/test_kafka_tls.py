"""A real Kafka with TLS and logins: each fault has a line of its own in `ingest check`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingest_pipeline.local.server import HOST, free_port
from ingest_pipeline_tests.conftest import needed
from ingest_pipeline_tests.integration.test_kafka_words import lines
from ingest_pipeline_tests.servers.certificates import Authority
from ingest_pipeline_tests.servers.kafka_jars import KafkaServer, check_java

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
PASSWORD = "cAnArY-18"
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
CASES = ("right", "elsewhere", "expired")


@dataclass
class SecureKafka:
    """`ports` has a listener for each certificate."""

    folder: Path
    authority: Authority
    ports: dict[str, int]

    def lines(self, certificate: str, **environ: str) -> list[tuple[bool, str]]:
        return lines(
            **{
                "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{self.ports[certificate]}",
                "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "KAFKA_SASL_MECHANISM": "PLAIN",
                "KAFKA_SASL_USERNAME": "ingest",
                "KAFKA_SASL_PASSWORD": PASSWORD,
                "KAFKA_SSL_CA_LOCATION": str(self.authority.path),
                **environ,
            }
        )


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "authority")
    plain, controller, ports = free_port(), free_port(), {name: free_port() for name in CASES}
    issued = {
        "right": authority.issue("right"),
        "elsewhere": authority.issue("elsewhere", address="127.0.0.2"),
        "expired": authority.issue("expired", days=-1),
    }
    secured = [f"{name.upper()}://{HOST}:{port}" for name, port in ports.items()]
    protocols = [f"{name.upper()}:SASL_SSL" for name in CASES]
    settings = {
        "listeners": ",".join([f"PLAINTEXT://{HOST}:{plain}", f"CONTROLLER://{HOST}:{controller}", *secured]),
        "advertised.listeners": ",".join([f"PLAINTEXT://{HOST}:{plain}", *secured]),
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listener.security.protocol.map": ",".join(["CONTROLLER:PLAINTEXT", "PLAINTEXT:PLAINTEXT", *protocols]),
        "sasl.enabled.mechanisms": "PLAIN",
    }
    for name, (certificate, key) in issued.items():
        store = folder / f"{name}.pem"
        store.write_text(key.read_text() + certificate.read_text())
        listener = f"listener.name.{name}"
        settings |= {
            f"{listener}.ssl.keystore.type": "PEM",
            f"{listener}.ssl.keystore.location": str(store),
            f"{listener}.plain.sasl.jaas.config": f'{LOGIN} user_ingest="{PASSWORD}";',
        }
    with needed("REQUIRE_KAFKA"):
        check_java()
        server = KafkaServer(folder / "kafka", properties=settings)
        server.bootstrap_servers = f"{HOST}:{plain}"
        with server:
            yield SecureKafka(folder, authority, ports)


def test_the_right_login_is_accepted(secure: SecureKafka) -> None:
    assert all(ok for ok, _ in secure.lines("right"))


def test_each_fault_has_its_own_line(secure: SecureKafka) -> None:
    other = str(Authority(secure.folder, "other").path)
    faults = {
        "unable to get local issuer certificate": secure.lines("right", KAFKA_SSL_CA_LOCATION=other),
        "IP address mismatch, certificate is not valid for '127.0.0.1'": secure.lines("elsewhere"),
        "certificate has expired": secure.lines("expired"),
        "the login was refused": secure.lines("right", KAFKA_SASL_PASSWORD="wrong"),
    }
    for words, found in faults.items():
        ((ok, message),) = found
        assert not ok
        assert words in message
        assert "\n" not in message
        assert PASSWORD not in message

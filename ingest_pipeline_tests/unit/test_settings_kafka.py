"""KAFKA_* variables → properties: accepted, refused and ignored names, compared with the client."""

import logging
import re
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException

from ingest_pipeline.kafka.client import consumer_config, open_client
from ingest_pipeline.settings import KafkaProperties, load_settings
from ingest_pipeline.settings.kafka import PROPERTIES, REFUSED, is_platform_variable, property_variable
from ingest_pipeline.settings.kafka_login import MECHANISMS
from ingest_pipeline_tests.unit.settings_loading import CANARY, STREAMS, load, problems


@pytest.mark.parametrize(
    ("variable", "name", "value"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "bootstrap.servers", "a:9092,[::1]:9093,c"),
        ("KAFKA_SECURITY_PROTOCOL", "security.protocol", "SASL_SSL"),
        ("KAFKA_SASL_MECHANISM", "sasl.mechanism", "SCRAM-SHA-512"),
        ("KAFKA_SASL_KERBEROS_SERVICE_NAME", "sasl.kerberos.service.name", "kafka"),
        ("KAFKA_LOG_LEVEL", "log_level", "7"),
        ("KAFKA_API_VERSION_REQUEST", "api.version.request", "True"),
        ("KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS", "topic.metadata.refresh.interval.ms", "-1"),
        ("KAFKA_ISOLATION_LEVEL", "isolation.level", "read_uncommitted"),
        ("KAFKA_SSL_CA_PEM", "ssl.ca.pem", "-----BEGIN\n"),
        ("KAFKA_ALLOW_AUTO_CREATE_TOPICS", "allow.auto.create.topics", "false"),
        ("KAFKA_ENABLE_SSL_CERTIFICATE_VERIFICATION", "enable.ssl.certificate.verification", "true"),
        ("KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM", "ssl.endpoint.identification.algorithm", "https"),
    ],
)
def test_a_property_by_its_variable(variable: str, name: str, value: str) -> None:
    login = {"KAFKA_SASL_MECHANISM": "GSSAPI"} if value == "SASL_SSL" else {}
    properties = dict(load(**login, **{variable: value}).kafka)
    if login:
        assert properties.pop("sasl.mechanism") == "GSSAPI"
    assert properties == {"bootstrap.servers": "localhost:9092", name: value}


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("KAFKA_SOCKET_TIMEOUT_MS", "60s", "must be a whole number from 10 to 300000, not '60s'"),
        ("KAFKA_SOCKET_TIMEOUT_MS", "9", "must be a whole number from 10 to 300000, not '9'"),
        ("KAFKA_CHECK_CRCS", "yes", "must be true or false, not 'yes'"),
        ("KAFKA_BROKER_ADDRESS_FAMILY", "v5", "must be any or v4 or v6, not 'v5'"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:b", "must be host:port, or several separated by commas, not 'a:b'"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1,,b:2", "must be host:port, or several separated by commas"),
        ("KAFKA_SECURITY_PROTOCOLL", "x", "the nearest name is KAFKA_SECURITY_PROTOCOL"),
        ("KAFKA_SSL_KEYSTORE_PASWORD", "x", "the nearest name is KAFKA_SSL_KEYSTORE_PASSWORD"),
        ("KAFKA_GROUP_PREFX", "x", "the nearest name is KAFKA_GROUP_PREFIX"),
        ("KAFKA_LINGER_MS", "5", "names no librdkafka property of a consumer"),
        ("KAFKA_BATCH_SIZE", "5", "BATCH_SIZE is for all streams"),
        ("KAFKA_ENABLE_AUTO_COMMIT", "false", "is refused: PostgreSQL holds the positions"),
        ("KAFKA_AUTO_COMMIT_ENABLE", "false", "is refused: PostgreSQL holds the positions"),
        ("KAFKA_ENABLE_AUTO_OFFSET_STORE", "false", "is refused: PostgreSQL holds the positions"),
        ("KAFKA_AUTO_OFFSET_RESET", "error", "is refused: START_FROM"),
        ("KAFKA_GROUP_ID", "x", "KAFKA_GROUP_PREFIX"),
        ("KAFKA_GROUP_INSTANCE_ID", "x", "is refused: partitions are assigned explicitly"),
        ("KAFKA_GROUP_PROTOCOL", "consumer", "is refused: partitions are assigned explicitly"),
        ("KAFKA_PARTITION_ASSIGNMENT_STRATEGY", "range", "is refused: partitions are assigned explicitly"),
        ("KAFKA_ENABLE_PARTITION_EOF", "false", "is refused: the end of a partition is always reported"),
        ("KAFKA_PLUGIN_LIBRARY_PATHS", "x", "is refused: a plugin is foreign code"),
        ("KAFKA_TEST_MOCK_NUM_BROKERS", "1", "is refused: a mock cluster"),
        ("KAFKA_TEST_MOCK_BROKER_RTT", "1", "is refused: a mock cluster"),
        ("KAFKA_DEFAULT_TOPIC_CONFIG", "x", "is refused: topic properties"),
        ("KAFKA_METADATA_BROKER_LIST", "a:1", "is refused: KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_ALLOW_AUTO_CREATE_TOPICS", "T", "is refused: a misspelt topic"),
    ],
)
def test_a_kafka_variable_that_cannot_be_used(variable: str, value: str, message: str) -> None:
    messages = problems(**{variable: value})
    assert list(messages) == [variable]
    assert message in messages[variable]


@pytest.mark.parametrize(
    ("others", "ours"),
    [
        ("URL URI BROKERS BROKER BROKER_LIST BOOTSTRAP BOOTSTRAP_SERVER BOOTSTRAP_BROKERS", "BOOTSTRAP_SERVERS"),
        ("HOST HOSTS SERVERS ADDRESS BROKER_URL ENDPOINT", "BOOTSTRAP_SERVERS"),
        ("USER USERNAME SASL_USER SASL_USER_NAME API_KEY", "SASL_USERNAME"),
        ("PASS PASSWORD SASL_PASS API_SECRET", "SASL_PASSWORD"),
        ("SASL_JAAS_CONFIG", "SASL_USERNAME, and KAFKA_SASL_PASSWORD"),
        ("SASL_MECH AUTH_MECHANISM MECHANISM", "SASL_MECHANISM"),
        ("PROTOCOL TLS SSL USE_SSL TLS_ENABLED", "SECURITY_PROTOCOL"),
        ("CA CA_CERT SSL_CA SSL_CAFILE TLS_CA_FILE SSL_TRUSTSTORE_LOCATION", "SSL_CA_LOCATION"),
        ("SSL_CERT TLS_CLIENT_CERT_FILE", "SSL_CERTIFICATE_LOCATION"),
        ("SSL_KEYFILE TLS_PRIVATE_KEY", "SSL_KEY_LOCATION"),
        ("GROUP CONSUMER_GROUP", "GROUP_PREFIX"),
    ],
)
def test_names_of_other_programs_are_explained(others: str, ours: str) -> None:
    for name in others.split():
        assert problems(**{f"KAFKA_{name}": "x"})[f"KAFKA_{name}"] == f"sets nothing: the name is KAFKA_{ours}"


@pytest.mark.parametrize("value", ["kafka://a:9092", "http://a:9092", "a:9092/", "a:9092 b:9092", "a:9092,"])
def test_a_malformed_list_of_brokers_is_refused(value: str) -> None:
    assert "host:port" in problems(KAFKA_BOOTSTRAP_SERVERS=value)["KAFKA_BOOTSTRAP_SERVERS"]


@pytest.mark.parametrize("value", [" a:9092 , b:9092 ", "a:9092,b:9092\n"])
def test_blanks_around_brokers_are_dropped(value: str) -> None:
    assert load(KAFKA_BOOTSTRAP_SERVERS=value).kafka["bootstrap.servers"] == "a:9092,b:9092"


@pytest.mark.parametrize(
    ("environ", "variable", "message"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA_SASL_MECHANISM", "must be set, since KAFKA_SECURITY_PROTOCOL"),
        ({"KAFKA_SASL_MECHANISM": "AWS_MSK_IAM"}, "KAFKA_SASL_MECHANISM", "must be GSSAPI or"),
        ({"KAFKA_SASL_MECHANISMS": "plain"}, "KAFKA_SASL_MECHANISM", "must be GSSAPI or"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "sasl_plaintext", "KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_SASL_PASSWORD": "x"},
            "KAFKA_SASL_USERNAME",
            "must be set, since KAFKA_SASL_MECHANISM is PLAIN",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_SASL_USERNAME": "x"},
            "KAFKA_SASL_PASSWORD",
            "must be set, since KAFKA_SASL_MECHANISM is PLAIN",
        ),
        ({"KAFKA_BOOTSTRAP_SERVERS": "SSL://a:1"}, "KAFKA_BOOTSTRAP_SERVERS", "they must agree"),
    ],
)
def test_settings_that_contradict_each_other(environ: dict[str, str], variable: str, message: str) -> None:
    messages = problems(**environ)
    assert list(messages) == [variable]
    assert message in messages[variable]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_client_knows_the_mechanism(mechanism: str) -> None:
    login = {"security.protocol": "SASL_PLAINTEXT", "sasl.username": "x", "sasl.password": "x"}
    try:
        Consumer({"group.id": "x", "sasl.mechanism": mechanism, **login}).close()
    except KafkaException as refused:
        assert "Unsupported SASL mechanism" not in str(refused)
    with pytest.raises(KafkaException, match="Unsupported SASL mechanism"):
        Consumer({"group.id": "x", "sasl.mechanism": mechanism.lower(), **login})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("KAFKA_ENABLE_SSL_CERTIFICATE_VERIFICATION", text) for text in ("false", "FALSE", "f", "0")),
        *(("KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM", text) for text in ("none", "None")),
    ],
)
def test_unverified_certificates_need_consent(variable: str, value: str) -> None:
    assert "ALLOW_INSECURE_TLS=1" in problems(**{variable: value})[variable]
    assert "ALLOW_INSECURE_TLS=1" in problems(**{variable: value, "ALLOW_INSECURE_TLS": "0"})[variable]
    assert value in load(**{variable: value, "ALLOW_INSECURE_TLS": "1"}).kafka.values()


def test_variables_of_platforms_and_of_kafka_are_ignored() -> None:
    left_behind = (
        *("KAFKA_PORT", "KAFKA_PORT_9092_TCP", "KAFKA_PORT_9092_TCP_ADDR", "KAFKA_PORT_9092_TCP_PORT"),
        *("KAFKA_PORT_9092_TCP_PROTO", "KAFKA_PORT_9093_UDP_ADDR", "KAFKA_SERVICE_HOST", "KAFKA_SERVICE_PORT"),
        *("KAFKA_SERVICE_PORT_TCP_CLIENT", "KAFKA_SERVICE_PORT_9092", "KAFKA_BROKERS_SERVICE_HOST"),
        *("KAFKA_0_HEADLESS_SERVICE_PORT_CLIENT", "KAFKA_BROKERS_PORT", "KAFKA_BROKERS_PORT_9092_TCP_ADDR"),
        *("KAFKA_9092_TCP", "KAFKA_9092_TCP_ADDR", "KAFKA_TCP", "KAFKA_CLIENT_TCP_PORT"),
        *("KAFKA_NAME", "KAFKA_ENV_KAFKA_VERSION", "KAFKA_HOME", "KAFKA_OPTS", "KAFKA_HEAP_OPTS"),
        *("KAFKA_JVM_PERFORMANCE_OPTS", "KAFKA_GC_LOG_OPTS", "KAFKA_LOG4J_OPTS", "KAFKA_JMX_OPTS"),
        *("KAFKA_JMX_PORT", "KAFKA_JMX_HOSTNAME", "KAFKA_VERSION", "KAFKA_SCALA_VERSION", "KAFKA_MODE"),
        *("KAFKA_DIR", "KAFKA_BIN", "KAFKA_LOG_DIR", "KAFKA_CONF_DIR"),
    )
    assert load_settings(STREAMS, dict.fromkeys(left_behind, "tcp://10.96.0.7:9092")) == load()


def test_kafka_properties_cannot_be_changed() -> None:
    properties: Any = KafkaProperties({"sasl.password": CANARY})
    with pytest.raises(TypeError):
        properties["group.id"] = "x"
    assert repr(properties) == "KafkaProperties({'sasl.password': '********'})"


@pytest.mark.parametrize("name", sorted(PROPERTIES))
def test_the_client_knows_the_property(name: str) -> None:
    """An invalid second property keeps the client from starting. An unknown property is reported first."""
    with pytest.raises(KafkaException) as caught:
        Consumer({name: "1", "group.id": "x", "socket.timeout.ms": "0"})
    assert "No such configuration property" not in str(caught.value)


@pytest.mark.parametrize("name", ["no.such.property", "builtin.feature"])
def test_the_client_refuses_an_unknown_property(name: str) -> None:
    with pytest.raises(KafkaException, match="No such configuration property"):
        Consumer({name: "1", "group.id": "x", "socket.timeout.ms": "0"})


@pytest.mark.parametrize(("name", "shape"), [(n, s) for n, s in sorted(PROPERTIES.items()) if ".." in s])
def test_the_client_has_the_same_range(name: str, shape: str) -> None:
    for bound, step in zip(map(int, shape.split("..")), (-1, 1), strict=True):
        with pytest.raises(KafkaException) as caught:
            Consumer({name: str(bound + step), "group.id": "x"})
        assert re.search(rf"outside allowed range {re.escape(shape)}\b", str(caught.value))


def test_variables_of_properties_are_distinct_and_not_ignored() -> None:
    names = {*PROPERTIES, *REFUSED}
    assert len({property_variable(name) for name in names}) == len(names)
    assert [name for name in names if is_platform_variable(property_variable(name))] == []


def test_oauthbearer_reaches_librdkafka() -> None:
    kafka = load(
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SASL_MECHANISM="OAUTHBEARER",
        KAFKA_SASL_OAUTHBEARER_METHOD="oidc",
        KAFKA_SASL_OAUTHBEARER_CLIENT_ID="ingest",
        KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET=CANARY,
        KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL="https://127.0.0.1:9/token",
        KAFKA_SASL_OAUTHBEARER_SCOPE="read",
    ).kafka
    config = consumer_config(kafka, "group", 0, "ingest")
    expected = {name: text for name, text in kafka.items() if name.startswith("sasl.")}
    assert len(expected) == 6
    assert expected.items() <= config.items()
    logger = logging.getLogger("librdkafka")
    logger.addHandler(logging.NullHandler())
    open_client(Consumer, config, logger).close()

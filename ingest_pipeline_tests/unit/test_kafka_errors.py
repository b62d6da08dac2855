"""Every error code of librdkafka is in a table, or stops the stream by its name."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from ingest_pipeline.core.errors import (
    DataLoss,
    EnvironmentFault,
    IngestError,
    KafkaUnavailable,
    NotPermitted,
    StopStream,
    TopicMissing,
    UnknownFault,
)
from ingest_pipeline.kafka.errors import map_error

WHERE = "Kafka at localhost:9092, topic price"
CODES = {name: code for name, code in vars(KafkaError).items() if isinstance(code, int) and not name.startswith("__")}


def words(text: str) -> list[str]:
    return text.split()


UNAVAILABLE = words("""
    _ALL_BROKERS_DOWN _DESTROY_BROKER _FAIL _INTR _IN_PROGRESS _MSG_TIMED_OUT _NODE_UPDATE _NOENT _OUTDATED
    _PREV_IN_PROGRESS _PURGE_INFLIGHT _PURGE_QUEUE _RESOLVE _RETRY _SSL _TIMED_OUT _TIMED_OUT_QUEUE _TRANSPORT
    _UNKNOWN_BROKER _WAIT_CACHE _WAIT_COORD BROKER_NOT_AVAILABLE CONCURRENT_TRANSACTIONS
    COORDINATOR_LOAD_IN_PROGRESS COORDINATOR_NOT_AVAILABLE ELIGIBLE_LEADERS_NOT_AVAILABLE FENCED_LEADER_EPOCH
    FETCH_SESSION_ID_NOT_FOUND INVALID_FETCH_SESSION_EPOCH KAFKA_STORAGE_ERROR LEADER_NOT_AVAILABLE LISTENER_NOT_FOUND
    NETWORK_EXCEPTION NOT_CONTROLLER NOT_COORDINATOR NOT_LEADER_FOR_PARTITION OFFSET_NOT_AVAILABLE
    PREFERRED_LEADER_NOT_AVAILABLE REASSIGNMENT_IN_PROGRESS REBOOTSTRAP_REQUIRED REPLICA_NOT_AVAILABLE
    REQUEST_TIMED_OUT STALE_BROKER_EPOCH STALE_CTRL_EPOCH THROTTLING_QUOTA_EXCEEDED UNKNOWN_CONTROLLER_ID
    UNKNOWN_LEADER_EPOCH UNSTABLE_OFFSET_COMMIT
""")
NOT_PERMITTED = words("""
    _AUTHENTICATION CLUSTER_AUTHORIZATION_FAILED DELEGATION_TOKEN_AUTHORIZATION_FAILED
    DELEGATION_TOKEN_AUTH_DISABLED DELEGATION_TOKEN_EXPIRED DELEGATION_TOKEN_NOT_FOUND
    DELEGATION_TOKEN_OWNER_MISMATCH DELEGATION_TOKEN_REQUEST_NOT_ALLOWED GROUP_AUTHORIZATION_FAILED
    ILLEGAL_SASL_STATE SASL_AUTHENTICATION_FAILED TOPIC_AUTHORIZATION_FAILED UNSUPPORTED_SASL_MECHANISM
""")
MISSING = words("""
    _UNKNOWN_PARTITION _UNKNOWN_TOPIC INCONSISTENT_TOPIC_ID TOPIC_EXCEPTION UNKNOWN_TOPIC_ID UNKNOWN_TOPIC_OR_PART
""")
LOST = words("_AUTO_OFFSET_RESET _LOG_TRUNCATION OFFSET_OUT_OF_RANGE _BAD_COMPRESSION _BAD_MSG _UNDERFLOW INVALID_MSG")

EXPECTED: dict[str, type[IngestError]] = {
    **dict.fromkeys(UNAVAILABLE, KafkaUnavailable),
    **dict.fromkeys(NOT_PERMITTED, NotPermitted),
    **dict.fromkeys(MISSING, TopicMissing),
    **dict.fromkeys(LOST, DataLoss),
}


def test_the_expected_codes_exist() -> None:
    assert set(EXPECTED) <= set(CODES)
    assert len(CODES) > 180


@pytest.mark.parametrize("name", sorted(CODES))
def test_the_error_for_every_code(name: str) -> None:
    error = map_error(KafkaError(CODES[name], "the client's own words"), WHERE, partition=3)
    assert type(error) is EXPECTED.get(name, UnknownFault)
    assert error.partition == 3
    assert name in error.message
    assert error.message.startswith(WHERE)
    assert "\n" not in error.message
    assert "the client's own words" not in error.message


@pytest.mark.parametrize("name", sorted(set(CODES) - set(EXPECTED)))
def test_the_message_for_every_code_that_stops_the_stream(name: str) -> None:
    message = map_error(KafkaError(CODES[name]), WHERE).message
    assert "nobody" not in message and "classified" not in message
    described = "unexpected error" in message and KafkaError(CODES[name]).str() in message
    assert described or message.endswith(f" ({name})")


GROUP_IN_USE = words("""
    FENCED_INSTANCE_ID FENCED_MEMBER_EPOCH GROUP_MAX_SIZE_REACHED GROUP_SUBSCRIBED_TO_TOPIC ILLEGAL_GENERATION
    INCONSISTENT_GROUP_PROTOCOL MEMBER_ID_REQUIRED NON_EMPTY_GROUP REBALANCE_IN_PROGRESS STALE_MEMBER_EPOCH
    UNKNOWN_MEMBER_ID UNRELEASED_INSTANCE_ID UNSUPPORTED_ASSIGNOR
""")


@pytest.mark.parametrize("name", GROUP_IN_USE)
def test_the_message_for_a_group_with_members(name: str) -> None:
    assert "another consumer is a member of this group" in map_error(KafkaError(CODES[name]), WHERE).message


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("_AUTHENTICATION", "KAFKA_SASL_MECHANISM"),
        ("_SSL", "KAFKA_SSL_CA_LOCATION"),
        ("_TRANSPORT", "KAFKA_SECURITY_PROTOCOL"),
        ("_ALL_BROKERS_DOWN", "KAFKA_BOOTSTRAP_SERVERS"),
        ("_RESOLVE", "advertised.listeners"),
        ("LISTENER_NOT_FOUND", "advertised.listeners"),
        ("MSG_SIZE_TOO_LARGE", "KAFKA_RECEIVE_MESSAGE_MAX_BYTES"),
    ],
)
def test_messages_name_the_variable_to_change(name: str, variable: str) -> None:
    assert variable in map_error(KafkaError(CODES[name]), WHERE).message


def test_unknown_codes_stop_the_stream_and_are_not_retried() -> None:
    error = map_error(KafkaError(31_000), WHERE)
    assert isinstance(error, UnknownFault)
    assert isinstance(error, StopStream)
    assert not isinstance(error, EnvironmentFault)


def test_an_exception_maps_like_its_error() -> None:
    assert type(map_error(KafkaException(KafkaError(KafkaError._TRANSPORT)), WHERE)) is KafkaUnavailable
    assert type(map_error(KafkaException("no error inside"), WHERE)) is UnknownFault
    assert type(map_error(KafkaException(), WHERE)) is UnknownFault


@pytest.mark.parametrize("protocol", ["", "sasl_ssl://", "ssl://"])
@pytest.mark.parametrize("address", ["kafka.invalid:9092", "kafka:9092", "[fe80::1]:9092"])
def test_an_advertised_address_that_does_not_resolve_is_named(protocol: str, address: str) -> None:
    text = f"{protocol}{address}/7: Failed to resolve '{address}': Name or service not known (after 2ms in CONNECT)"
    message = map_error(KafkaError(KafkaError._RESOLVE, text), WHERE).message
    assert f"{WHERE}: broker 7 tells clients to connect to {address}, which does not resolve" in message
    assert "advertised.listeners" in message


@pytest.mark.parametrize("text", ["kafka.invalid:9092/bootstrap: Failed to resolve 'kafka.invalid:9092'", "", "?"])
def test_an_address_of_the_settings_is_not_called_advertised(text: str) -> None:
    message = map_error(KafkaError(KafkaError._RESOLVE, text), WHERE).message
    assert "Check KAFKA_BOOTSTRAP_SERVERS" in message


@pytest.mark.parametrize("code", ["_TIMED_OUT", "_TRANSPORT", "_WAIT_COORD"])
def test_a_silent_coordinator_is_no_silent_kafka(code: str) -> None:
    fault = map_error(KafkaError(CODES[code]), WHERE, to_coordinator=True)
    assert isinstance(fault, KafkaUnavailable)
    assert fault.message.startswith(f"{WHERE}: the group's coordinator does not answer")

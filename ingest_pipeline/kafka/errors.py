"""librdkafka's error codes → the product's errors. A code missing in all tables stops the stream.

Only an advertised address that does not resolve is taken from librdkafka's text.
"""

from __future__ import annotations

import re
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from ..core.errors import DataLoss, IngestError, KafkaUnavailable, NotPermitted, TopicMissing, UnknownFault

_UNREACHABLE = (
    "does not answer. Check that the brokers run, and check KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL."
    " `ingest check` tests every address"
)
_COORDINATOR = (
    "the group's coordinator does not answer. Check the broker that leads the group's partition of __consumer_offsets"
)
_NAME = (
    "a broker's host name does not resolve. Check KAFKA_BOOTSTRAP_SERVERS and the brokers' advertised.listeners."
    " `ingest check` names the address"
)
_LISTENER = "a broker lacks the listener that clients ask for. Check advertised.listeners of every broker"
_LATER = "cannot answer now. The request may be repeated"
_TLS = "TLS could not be set up. Check KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CA_LOCATION and the broker's certificate"
_LOGIN = (
    "the login was refused. Check KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and"
    " KAFKA_SASL_PASSWORD"
)
_TOPIC_RIGHT = "a right on the topic is missing. Grant Read, which includes Describe"
_GROUP_RIGHT = "a right on the consumer group is missing. Grant Read on the group"
_GROUP_IN_USE = (
    "another consumer is a member of this group, so Kafka refuses the stream's commits. Give that consumer another"
    " group, or set KAFKA_GROUP_PREFIX"
)
_MARK = "Kafka refuses the mark in the group's commits. Raise offset.metadata.max.bytes of the brokers to 100 or more"
_DAMAGED = (
    "the client cannot read a record batch or an answer. The data is damaged, or its compression is unknown to the"
    " client. kafka-dump-log.sh finds a damaged batch"
)
_OTHER_SERVER = (
    "the server does not know the request. Check that the server is a broker, not a controller, and Kafka 2.1 or newer"
)
_HERE = "this machine lacks memory, threads, file handles or the right to a file. Its system log has the cause"
_BROKER_BUG = "the broker met an unexpected error. Its log has the cause"
_CLUSTER_RIGHT = "a right on the cluster is missing. Grant the right to this user"
_NO_TOPIC = "the topic or partition does not exist. Create it, or correct the stream's topic"
_LOST = "the log no longer holds the next offset. An operator must accept the gap"
_TOO_LARGE = "a record is larger than a fetch may be. Raise KAFKA_RECEIVE_MESSAGE_MAX_BYTES and KAFKA_FETCH_MAX_BYTES"


_CODES: dict[tuple[type[IngestError], str], str] = {
    (KafkaUnavailable, _UNREACHABLE): """
        _ALL_BROKERS_DOWN _DESTROY_BROKER _FAIL _MSG_TIMED_OUT _TIMED_OUT _TIMED_OUT_QUEUE _TRANSPORT
        BROKER_NOT_AVAILABLE NETWORK_EXCEPTION REBOOTSTRAP_REQUIRED REQUEST_TIMED_OUT""",
    (KafkaUnavailable, _LATER): """
        _INTR _IN_PROGRESS _NODE_UPDATE _NOENT _OUTDATED _PREV_IN_PROGRESS _PURGE_INFLIGHT _PURGE_QUEUE _RETRY
        _UNKNOWN_BROKER _WAIT_CACHE _WAIT_COORD CONCURRENT_TRANSACTIONS COORDINATOR_LOAD_IN_PROGRESS
        COORDINATOR_NOT_AVAILABLE ELIGIBLE_LEADERS_NOT_AVAILABLE FENCED_LEADER_EPOCH FETCH_SESSION_ID_NOT_FOUND
        INVALID_FETCH_SESSION_EPOCH KAFKA_STORAGE_ERROR LEADER_NOT_AVAILABLE NOT_CONTROLLER NOT_COORDINATOR
        NOT_LEADER_FOR_PARTITION OFFSET_NOT_AVAILABLE PREFERRED_LEADER_NOT_AVAILABLE REASSIGNMENT_IN_PROGRESS
        REPLICA_NOT_AVAILABLE STALE_BROKER_EPOCH STALE_CTRL_EPOCH THROTTLING_QUOTA_EXCEEDED
        UNKNOWN_CONTROLLER_ID UNKNOWN_LEADER_EPOCH UNSTABLE_OFFSET_COMMIT""",
    (KafkaUnavailable, _NAME): "_RESOLVE",
    (KafkaUnavailable, _TLS): "_SSL",
    (KafkaUnavailable, _LISTENER): "LISTENER_NOT_FOUND",
    (NotPermitted, _LOGIN): """
        _AUTHENTICATION DELEGATION_TOKEN_AUTH_DISABLED DELEGATION_TOKEN_EXPIRED DELEGATION_TOKEN_NOT_FOUND
        DELEGATION_TOKEN_OWNER_MISMATCH DELEGATION_TOKEN_REQUEST_NOT_ALLOWED ILLEGAL_SASL_STATE
        SASL_AUTHENTICATION_FAILED UNSUPPORTED_SASL_MECHANISM""",
    (NotPermitted, _TOPIC_RIGHT): "TOPIC_AUTHORIZATION_FAILED",
    (NotPermitted, _GROUP_RIGHT): "GROUP_AUTHORIZATION_FAILED",
    (NotPermitted, _CLUSTER_RIGHT): "CLUSTER_AUTHORIZATION_FAILED DELEGATION_TOKEN_AUTHORIZATION_FAILED",
    (TopicMissing, _NO_TOPIC): """
        _UNKNOWN_PARTITION _UNKNOWN_TOPIC INCONSISTENT_TOPIC_ID TOPIC_EXCEPTION UNKNOWN_TOPIC_ID
        UNKNOWN_TOPIC_OR_PART""",
    (DataLoss, _LOST): "_AUTO_OFFSET_RESET _LOG_TRUNCATION OFFSET_OUT_OF_RANGE",
    (DataLoss, _DAMAGED): "_BAD_COMPRESSION _BAD_MSG _UNDERFLOW INVALID_MSG",
    (UnknownFault, _GROUP_IN_USE): """
        FENCED_INSTANCE_ID FENCED_MEMBER_EPOCH GROUP_MAX_SIZE_REACHED GROUP_SUBSCRIBED_TO_TOPIC
        ILLEGAL_GENERATION INCONSISTENT_GROUP_PROTOCOL MEMBER_ID_REQUIRED NON_EMPTY_GROUP REBALANCE_IN_PROGRESS
        STALE_MEMBER_EPOCH UNKNOWN_MEMBER_ID UNRELEASED_INSTANCE_ID UNSUPPORTED_ASSIGNOR""",
    (UnknownFault, _MARK): "INVALID_COMMIT_OFFSET_SIZE OFFSET_METADATA_TOO_LARGE",
    (UnknownFault, _DAMAGED): "INVALID_MSG_SIZE INVALID_RECORD UNSUPPORTED_COMPRESSION_TYPE",
    (UnknownFault, _OTHER_SERVER): """
        _UNKNOWN_PROTOCOL _UNSUPPORTED_FEATURE MISMATCHED_ENDPOINT_TYPE UNSUPPORTED_ENDPOINT_TYPE
        UNSUPPORTED_FOR_MESSAGE_FORMAT UNSUPPORTED_VERSION""",
    (UnknownFault, _HERE): "_CRIT_SYS_RESOURCE _FS",
    (UnknownFault, _BROKER_BUG): "UNKNOWN",
    (UnknownFault, _TOO_LARGE): "MSG_SIZE_TOO_LARGE",
}
"""Outcome → names of librdkafka's codes."""

_BROKER = re.compile(r"(?:[a-z_]+://)?(?P<address>[^/\s]+)/(?P<id>\d+): ")
"""The prefix of librdkafka's text about an advertised address. A bootstrap server has no number in this place."""

_BY_CODE = {getattr(KafkaError, name): outcome for outcome, names in _CODES.items() for name in names.split()}


def is_corrupt(error: KafkaError) -> bool:
    """Whether the log holds a record batch that the client cannot read."""
    return _BY_CODE.get(error.code()) == (DataLoss, _DAMAGED)


def map_error(
    error: KafkaError | KafkaException, where: str, *, to_coordinator: bool = False, **attributes: Any
) -> IngestError:
    """The product's error for a Kafka error. The caller raises the result `from` the Kafka error.

    Args:
        where: the beginning of the message: "Kafka at localhost:9092, topic price".
        to_coordinator: the request was to the coordinator of a group. Other brokers may answer.
        attributes: of the result: partition, offset.
    """
    if isinstance(error, KafkaException):
        inner = error.args[0] if error.args else None
        if not isinstance(inner, KafkaError):
            return UnknownFault(f"{where}: an error without a code ({type(error).__name__})", **attributes)
        error = inner
    outcome = _BY_CODE.get(error.code())
    if outcome is None:
        # The description of the code, never the text of this error, which may quote a payload.
        meaning = f"{error.name()} ({KafkaError(error.code()).str()})"
        return UnknownFault(
            f"{where}: unexpected error {meaning}. The request is not repeated. The brokers' logs may have the cause",
            **attributes,
        )
    kind, advice = outcome
    if to_coordinator and (advice is _UNREACHABLE or error.code() == KafkaError._WAIT_COORD):
        advice = _COORDINATOR
    if advice is _NAME and (broker := _BROKER.match(error.str())) is not None:
        advice = (
            f"broker {broker['id']} tells clients to connect to {broker['address']}, which does not resolve on this"
            " machine. Correct advertised.listeners there"
        )
    return kind(f"{where}: {advice} ({error.name()})", **attributes)

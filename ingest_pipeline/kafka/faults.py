"""librdkafka's error codes → our errors. By code, never by text; a code in no table stops the stream."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException

from ..core.errors import DataLoss, IngestError, KafkaUnavailable, NotPermitted, TopicMissing, UnknownFault

_UNREACHABLE = "does not answer; check that the brokers run and that bootstrap.servers names them"
_LATER = "cannot answer now; the request may be repeated"
_TLS = "TLS could not be set up; check security.protocol, ssl.ca.location and the broker's certificate"
_LOGIN = "the login was refused; check security.protocol, sasl.mechanisms, sasl.username and sasl.password"
_TOPIC_RIGHT = "a right on the topic is missing; grant Read (it includes Describe)"
_GROUP_RIGHT = "a right on the consumer group is missing; grant Read on group.id"
_CLUSTER_RIGHT = "a right on the cluster is missing; grant it to this user"
_NO_TOPIC = "the topic or partition does not exist; create it, or correct the stream's topic"
_LOST = "the log no longer holds the next offset; an operator has to accept the gap"
_TOO_LARGE = "a record is larger than a fetch may be; raise receive.message.max.bytes and fetch.max.bytes"

_TABLE: dict[str, tuple[type[IngestError], str]] = {
    **dict.fromkeys(
        (
            "_ALL_BROKERS_DOWN",
            "_DESTROY_BROKER",
            "_FAIL",
            "_MSG_TIMED_OUT",
            "_RESOLVE",
            "_TIMED_OUT",
            "_TIMED_OUT_QUEUE",
            "_TRANSPORT",
            "BROKER_NOT_AVAILABLE",
            "NETWORK_EXCEPTION",
            "REBOOTSTRAP_REQUIRED",
            "REQUEST_TIMED_OUT",
        ),
        (KafkaUnavailable, _UNREACHABLE),
    ),
    **dict.fromkeys(
        (
            "_INTR",
            "_IN_PROGRESS",
            "_NODE_UPDATE",
            "_NOENT",
            "_OUTDATED",
            "_PREV_IN_PROGRESS",
            "_PURGE_INFLIGHT",
            "_PURGE_QUEUE",
            "_RETRY",
            "_UNKNOWN_BROKER",
            "_WAIT_CACHE",
            "_WAIT_COORD",
            "CONCURRENT_TRANSACTIONS",
            "COORDINATOR_LOAD_IN_PROGRESS",
            "COORDINATOR_NOT_AVAILABLE",
            "ELIGIBLE_LEADERS_NOT_AVAILABLE",
            "FENCED_LEADER_EPOCH",
            "FETCH_SESSION_ID_NOT_FOUND",
            "INVALID_FETCH_SESSION_EPOCH",
            "KAFKA_STORAGE_ERROR",
            "LEADER_NOT_AVAILABLE",
            "NOT_CONTROLLER",
            "NOT_COORDINATOR",
            "NOT_LEADER_FOR_PARTITION",
            "OFFSET_NOT_AVAILABLE",
            "PREFERRED_LEADER_NOT_AVAILABLE",
            "REASSIGNMENT_IN_PROGRESS",
            "REPLICA_NOT_AVAILABLE",
            "STALE_BROKER_EPOCH",
            "STALE_CTRL_EPOCH",
            "THROTTLING_QUOTA_EXCEEDED",
            "UNKNOWN_CONTROLLER_ID",
            "UNKNOWN_LEADER_EPOCH",
            "UNSTABLE_OFFSET_COMMIT",
        ),
        (KafkaUnavailable, _LATER),
    ),
    "_SSL": (KafkaUnavailable, _TLS),
    **dict.fromkeys(
        (
            "_AUTHENTICATION",
            "DELEGATION_TOKEN_AUTH_DISABLED",
            "DELEGATION_TOKEN_EXPIRED",
            "DELEGATION_TOKEN_NOT_FOUND",
            "DELEGATION_TOKEN_OWNER_MISMATCH",
            "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED",
            "ILLEGAL_SASL_STATE",
            "SASL_AUTHENTICATION_FAILED",
            "UNSUPPORTED_SASL_MECHANISM",
        ),
        (NotPermitted, _LOGIN),
    ),
    "TOPIC_AUTHORIZATION_FAILED": (NotPermitted, _TOPIC_RIGHT),
    "GROUP_AUTHORIZATION_FAILED": (NotPermitted, _GROUP_RIGHT),
    "CLUSTER_AUTHORIZATION_FAILED": (NotPermitted, _CLUSTER_RIGHT),
    "DELEGATION_TOKEN_AUTHORIZATION_FAILED": (NotPermitted, _CLUSTER_RIGHT),
    **dict.fromkeys(
        (
            "_UNKNOWN_PARTITION",
            "_UNKNOWN_TOPIC",
            "INCONSISTENT_TOPIC_ID",
            "TOPIC_EXCEPTION",
            "UNKNOWN_TOPIC_ID",
            "UNKNOWN_TOPIC_OR_PART",
        ),
        (TopicMissing, _NO_TOPIC),
    ),
    **dict.fromkeys(("_AUTO_OFFSET_RESET", "_LOG_TRUNCATION", "OFFSET_OUT_OF_RANGE"), (DataLoss, _LOST)),
    "MSG_SIZE_TOO_LARGE": (UnknownFault, _TOO_LARGE),
}

_BY_CODE = {getattr(KafkaError, name): outcome for name, outcome in _TABLE.items()}


def passes(error: KafkaException) -> bool:
    """Whether the same question may be answered a moment later: a leader or a coordinator is moving."""
    inner = error.args[0] if error.args else None
    outcome = _BY_CODE.get(inner.code()) if isinstance(inner, KafkaError) else None
    return outcome is not None and outcome[1] is _LATER


def map_error(error: KafkaError | KafkaException, where: str, **attributes: Any) -> IngestError:
    """The error of ours that a Kafka error means, to be raised `from` it.

    Args:
        where: what was asked of whom, as the message begins: "Kafka at localhost:9092, topic price".
        attributes: kept on the error: partition, offset.
    """
    if isinstance(error, KafkaException):
        inner = error.args[0] if error.args else None
        if not isinstance(inner, KafkaError):
            return UnknownFault(f"{where}: an error without a code ({type(error).__name__})", **attributes)
        error = inner
    outcome = _BY_CODE.get(error.code())
    if outcome is None:
        # The code's own description, not this occurrence's text, which may quote anything.
        meaning = f"{error.name()} ({KafkaError(error.code()).str()})"
        return UnknownFault(f"{where}: {meaning} is an error nobody has classified; see Kafka's log", **attributes)
    kind, advice = outcome
    return kind(f"{where}: {advice} ({error.name()})", **attributes)

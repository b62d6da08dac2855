"""The rights of every role in Kafka, printed by `ingest grants` and tried by `ingest check`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from shlex import quote

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

from ..core.roles import Role
from .admin import Admin
from .errors import map_error

TOPIC_RIGHT: Mapping[Role, str] = {Role.WRITER: "Read", Role.OPERATOR: "Read", Role.READER: "Describe"}
GROUP_RIGHT: Mapping[Role, str] = {Role.WRITER: "Read", Role.OPERATOR: "Read"}
"""A right to read includes the right to describe."""
_SECONDS = 5.0


def script(
    role: Role,
    principal: str,
    bootstrap_servers: str,
    topics: Iterable[str],
    groups: Iterable[str],
    adopted_groups: Iterable[str],
) -> Iterator[str]:
    """A line of kafka-acls.sh for each right.

    Args:
        adopted_groups: groups of other programs. A new stream continues from their offsets.
    """
    rights = [("topic", name, TOPIC_RIGHT.get(role)) for name in topics]
    rights += [("group", name, GROUP_RIGHT.get(role)) for name in groups]
    rights += [("group", name, "Describe" if role in GROUP_RIGHT else None) for name in adopted_groups]
    command = f"kafka-acls.sh --bootstrap-server {bootstrap_servers} --add --allow-principal {quote(principal)}"
    for kind, name, right in dict.fromkeys(rights):
        if right is not None:
            yield f"{command} --operation {right} --{kind} {quote(name)}"


def missing(admin: Admin, topic: str, group: str) -> list[str] | None:
    """A writer's rights missing for the client, in words. An unreported right counts as granted. None: the broker does
    not know the question."""
    client = admin.client()
    lacking = []
    asked = {"include_authorized_operations": True, "request_timeout": _SECONDS}
    try:
        operations = client.describe_topics(TopicCollection([topic]), **asked)[topic].result(_SECONDS + 1)
        if not _may_read(operations.authorized_operations):
            lacking.append(f"Read on topic {topic}")
    except (KafkaException, TimeoutError):
        pass  # the line of the topic has the fault
    try:
        operations = client.describe_consumer_groups([group], **asked)[group].result(_SECONDS + 1)
        if not _may_read(operations.authorized_operations):
            lacking.append(f"Read on group {group}, so lag tools do not see the position")
    except KafkaException as error:
        if error.args[0].code() in (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION):
            return lacking or None
        lacking.append(map_error(error, f"group {group}").message)
    except TimeoutError:
        lacking.append(map_error(KafkaError(KafkaError._TIMED_OUT), f"group {group}").message)
    return lacking


def _may_read(operations: Iterable[AclOperation] | None) -> bool:
    return operations is None or AclOperation.READ in operations

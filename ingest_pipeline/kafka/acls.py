"""The rights of every role in Kafka, printed by `ingest grants` and tried by `ingest check`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from shlex import quote

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

from ..core.errors import IngestError, KafkaUnavailable
from ..core.roles import Role
from .admin import Admin
from .errors import map_error
from .topics import KafkaTopics

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


@dataclass(slots=True)
class MissingRights:
    """A writer's rights on a topic and a group, in words.

    Attributes:
        missing: a right that Kafka does not report counts as granted.
        unknown: a broker did not answer.
    """

    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def missing_rights(admin: Admin, topic: str, group: str) -> MissingRights | None:
    """The client's missing rights. None: the broker does not know the question."""
    topics = KafkaTopics(admin, timeout_seconds=_SECONDS)
    rights, on_topic, on_group = MissingRights(), f"Read on topic {topic}", f"Read on group {group}"
    try:
        if not _may_read(topics.metadata.rights(topic, topics.deadline())):
            rights.missing.append(on_topic)
    except KafkaUnavailable:
        rights.unknown.append(on_topic)
    except IngestError:
        pass  # the line of the topic has the fault
    asked = {"include_authorized_operations": True, "request_timeout": _SECONDS}
    try:
        operations = admin.client().describe_consumer_groups([group], **asked)[group].result(_SECONDS + 1)
        if not _may_read(operations.authorized_operations):
            rights.missing.append(f"{on_group}, so lag tools do not see the position")
    except KafkaException as error:
        if error.args[0].code() in (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION):
            return rights if rights.missing else None
        fault = map_error(error, f"group {group}")
        if isinstance(fault, KafkaUnavailable):
            rights.unknown.append(on_group)
        else:
            rights.missing.append(fault.message)
    except TimeoutError:
        rights.unknown.append(on_group)
    return rights


def _may_read(operations: Iterable[AclOperation] | None) -> bool:
    return operations is None or AclOperation.READ in operations

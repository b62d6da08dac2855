"""KAFKA_* variables → librdkafka properties. KAFKA_SECURITY_PROTOCOL sets `security.protocol`."""

import importlib.resources
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from . import kafka_login
from .database_url import MASK
from .values import SecretText

PREFIX = "KAFKA_"
DEFAULTS: Mapping[str, str] = {"bootstrap.servers": "localhost:9092"}
INSECURE = "ALLOW_INSECURE_TLS"

_LEDGER = "PostgreSQL holds the positions, and Kafka's offsets only serve lag tools"
_ASSIGNED = "partitions are assigned explicitly from the positions in PostgreSQL, without group membership"
_PULLED = "BATCH_SIZE and BATCH_BYTES bound each read"
_CLIENT = "the product sets it itself"
REFUSED: Mapping[str, str] = {
    "enable.auto.commit": _LEDGER,
    "auto.commit.enable": _LEDGER,
    "auto.commit.interval.ms": _LEDGER,
    "enable.auto.offset.store": _LEDGER,
    "offset.store.method": _LEDGER,
    "offset.store.path": _LEDGER,
    "offset.store.sync.interval.ms": _LEDGER,
    "auto.offset.reset": "START_FROM gives the first offset of a new stream, and a lost range must stop the stream",
    "group.id": "a stream's group is KAFKA_GROUP_PREFIX and the stream's name",
    "group.instance.id": _ASSIGNED,
    "group.protocol": _ASSIGNED,
    "group.protocol.type": _ASSIGNED,
    "group.remote.assignor": _ASSIGNED,
    "partition.assignment.strategy": _ASSIGNED,
    "enable.partition.eof": "the end of a partition is always reported, or lag could not reach zero",
    "max.poll.records": _PULLED,
    "consume.callback.max.messages": _PULLED,
    "share.acknowledgement.mode": "share groups keep no position per partition",
    "metadata.broker.list": "KAFKA_BOOTSTRAP_SERVERS names the brokers",
    "default.topic.config": "topic properties are given by their own names",
    "plugin.library.paths": "a plugin is foreign code that may alter records",
    "enabled_events": _CLIENT,
    "log.queue": _CLIENT,
    "test.mock.num.brokers": "a mock cluster would be read instead of Kafka",
}
"""Properties that would break a guarantee of the product, with the reason."""


def _properties() -> dict[str, str]:
    lines = importlib.resources.files(__package__).joinpath("kafka_properties.tsv").read_text().splitlines()
    return dict(line.split("\t", 1) for line in lines if not line.startswith("#"))


PROPERTIES: Mapping[str, str] = MappingProxyType(_properties())
"""librdkafka's name → "bool", "least..greatest" for a whole number, "a|b|c" for a choice, or "" for any text."""

_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")
_BROKER = re.compile(
    r"(?:(?i:PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)://)?(?:\[[0-9A-Fa-f:.%]+\]|[^\s:,/@\[\]]+)(?::\d{1,5})?"
)
_SECRET = re.compile(r"password|passphrase|secret|\.pem$|oauthbearer\.config$|kinit\.cmd$")
_USERINFO = re.compile(r":(?://)?[^/]*@")
_PLATFORM_VARIABLE = re.compile(
    r"KAFKA_(?:\w+_)?(?:PORT(?:_\w+)?|SERVICE_(?:HOST|PORT)(?:_\w+)?|(?:TCP|UDP)(?:_\w+)?|OPTS|VERSION)"
    r"|KAFKA_(?:SERVICE|ENV|JMX)_\w+|KAFKA_(?:NAME|HOME|DIR|BIN|MODE|(?:LOG|CONF|CONFIG|DATA)_DIR)"
)
"""Variables that Kubernetes and Docker set for a service called kafka, and that Kafka's scripts and images set."""


class KafkaProperties(Mapping[str, str]):
    """librdkafka properties by name. Immutable. `repr` masks secrets, also in a `dict` of the properties."""

    def __init__(self, properties: Mapping[str, str] = DEFAULTS) -> None:
        self._properties = {
            name: SecretText(value) if is_secret(name, value) else value for name, value in sorted(properties.items())
        }

    def __getitem__(self, name: str) -> str:
        return self._properties[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._properties)

    def __len__(self) -> int:
        return len(self._properties)

    def __repr__(self) -> str:
        return f"KafkaProperties({self._properties!r})"


def property_variable(name: str) -> str:
    """security.protocol → KAFKA_SECURITY_PROTOCOL."""
    return PREFIX + re.sub(r"[.-]", "_", name).upper()


def is_property(key: str) -> bool:
    """Whether a KAFKA_* variable sets a property."""
    return key in map(property_variable, (*PROPERTIES, *REFUSED))


def is_secret(name: str, value: str) -> bool:
    """Whether a property's value stays unprinted: its name says so, or the value is a URL with a password."""
    return has_secret_name(name) or _USERINFO.search(value) is not None


def has_secret_name(name: str) -> bool:
    return _SECRET.search(name) is not None


def is_platform_variable(name: str) -> bool:
    """Whether a KAFKA_* variable comes from the platform or from Kafka itself and is no setting."""
    return _PLATFORM_VARIABLE.fullmatch(name) is not None


def display_text(name: str, value: str) -> str:
    return MASK if is_secret(name, value) else value


def meaning(name: str) -> str:
    if name == "bootstrap.servers":
        return "The Kafka brokers to ask first."
    return f"The property {name} of librdkafka."


def allowed(name: str) -> str:
    """The form of a property's value: the end of the sentence "X must be …"."""
    shape = PROPERTIES[name]
    if name == "bootstrap.servers":
        return "host:port, or several separated by commas"
    if shape == "bool":
        return "true or false"
    if ".." in shape:
        low, high = shape.split("..")
        return f"a whole number from {low} to {high}"
    return shape.replace("|", " or ") or "a text"


def kafka_properties(
    variables: Mapping[str, str], settings: Collection[str], allow_insecure_tls: bool
) -> tuple[KafkaProperties, dict[str, str]]:
    """The properties from DEFAULTS and from KAFKA_* variables, and variable → problem.

    Args:
        variables: non-empty variables. Names without KAFKA_ in front are ignored.
        settings: names of the product's own settings, such as KAFKA_GROUP_PREFIX.
    """
    names = {property_variable(name): name for name in (*PROPERTIES, *REFUSED)}
    usable = [key for key, name in names.items() if name not in REFUSED]
    usable += [key for key in settings if key.startswith(PREFIX)]
    properties = dict(DEFAULTS)
    problems: dict[str, str] = {}
    for key, value in variables.items():
        if not key.startswith(PREFIX) or key in settings:
            continue
        name = names.get(key)
        if name is None:
            if key.startswith("KAFKA_TEST_MOCK_"):
                problems[key] = f"is refused: {REFUSED['test.mock.num.brokers']}"
            elif not is_platform_variable(key):
                setting = key.removeprefix(PREFIX)
                problems[key] = (
                    f"sets nothing: {setting} is for all streams" if setting in settings else _unknown(key, usable)
                )
        elif name in REFUSED:
            problems[key] = f"is refused: {REFUSED[name]}"
        elif not _is_valid(name, value):
            problems[key] = f"must be {allowed(name)}" + ("" if is_secret(name, value) else f", not {value[:60]!r}")
        elif reason := _danger(name, value, allow_insecure_tls):
            problems[key] = f"is refused: {reason}"
        else:
            # The addresses of brokers may have blanks and line ends around them.
            properties[name] = ",".join(map(str.strip, value.split(","))) if name == "bootstrap.servers" else value
    return KafkaProperties(properties), problems or kafka_login.combination_problems(properties)


def _unknown(key: str, names: Collection[str]) -> str:
    if intended := kafka_login.intended_variable(key):
        return f"sets nothing: the name is {intended}"
    near = get_close_matches(key, names, n=1, cutoff=0.0)
    return f"names no librdkafka property of a consumer: the nearest name is {near[0]}"


def _is_valid(name: str, value: str) -> bool:
    """Whether librdkafka accepts the value. Numbers are held to a stricter rule: librdkafka reads "60s" as 60."""
    shape = PROPERTIES[name]
    if name == "bootstrap.servers":
        return all(_BROKER.fullmatch(broker.strip()) for broker in value.split(","))
    if shape == "bool":
        return value.lower() in (*_TRUE, *_FALSE)
    if ".." in shape:
        low, high = (int(bound) for bound in shape.split(".."))
        return re.fullmatch(r"-?\d{1,18}", value) is not None and low <= int(value) <= high
    return not shape or value.lower() in shape.lower().split("|")


def _danger(name: str, value: str, allow_insecure_tls: bool) -> str:
    unverified = (name == "enable.ssl.certificate.verification" and value.lower() not in _TRUE) or (
        name == "ssl.endpoint.identification.algorithm" and value.lower() != "https"
    )
    if unverified and not allow_insecure_tls:
        return f"any server could pose as the broker. {INSECURE}=1 allows this for a test"
    if name == "allow.auto.create.topics" and value.lower() not in _FALSE:
        return "a misspelt topic would be created and read"
    return ""

"""A stream: topic → event type → table. A plain value that anything may build."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

import msgspec

from .errors import SettingsError
from .fields import Field, field_of

COORDINATES = ("kafka_incarnation", "kafka_partition", "kafka_offset")
"""The event table's primary key: unique for ever, whatever happens to the topic."""
RESERVED = (*COORDINATES, "kafka_timestamp", "ingested_at")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_TAG = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
POSTGRES_NAME_BYTES = 63
LEAST_SILENCE = timedelta(minutes=1)
"""Dagster's shortest freshness window."""


@dataclass(frozen=True)
class Stream:
    """One topic drained into one table.

    Attributes:
        name: of the asset, the sensor (`<name>_sensor`), the job (`drain_<name>`) and the consumer group
            (`<KAFKA_GROUP_PREFIX><name>`); upper-cased it prefixes the stream's own settings (`PRICE_BATCH_SIZE`).
        event: a msgspec Struct whose fields are the table's columns. It has `event_time: datetime`; a field whose JSON
            key differs says so: `event_time: datetime = field(name="timestamp")`.
        topic: defaults to the name.
        table: defaults to the name; lives in DATABASE_SCHEMA.
        owners: Dagster owners of the asset ("team:x" or an e-mail address).
        tags: Dagster tags of the asset.
        max_silence: the asset turns stale when it has not been materialized for so long; None: an idle topic is fine.

    Raises:
        SettingsError: a name or a field cannot be used; says which and why.
    """

    name: str
    event: type[msgspec.Struct]
    topic: str = ""
    table: str = ""
    owners: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    max_silence: timedelta | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "topic", self.topic or self.name)
        object.__setattr__(self, "table", self.table or self.name)
        if not _NAME.fullmatch(self.name):
            raise SettingsError(f"stream {self.name!r}: a name is a lower-case letter, then up to 39 of a-z, 0-9 and _")
        if not _TOPIC.fullmatch(self.topic) or self.topic in (".", ".."):
            raise SettingsError(f"stream {self.name}: {self.topic!r} is not a name Kafka allows for a topic")
        for what in (self.table, *(item.name for item in self.fields)):
            if "\0" in what or not 1 <= len(what.encode()) <= POSTGRES_NAME_BYTES:
                raise SettingsError(
                    f"stream {self.name}: {what!r} does not fit PostgreSQL's {POSTGRES_NAME_BYTES} bytes for a name"
                )
        self._check_event()
        self._check_asset()

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The event's fields in declared order."""
        return tuple(field_of(info, self.event.__name__) for info in msgspec.structs.fields(self.event))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns a row fills, in the order of a Row's items; `ingested_at` is the database's own."""
        return (*COORDINATES, "kafka_timestamp", *(item.name for item in self.fields))

    def definition(self, *more: object) -> str:
        """A short hash of what rows of this stream look like, and of whatever else is given: equal for equal code."""
        shape = [(item.name, item.json_name, item.pg_type, item.nullable) for item in self.fields]
        text = repr((self.name, self.topic, self.table, shape, more))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _check_event(self) -> None:
        owner = self.event.__name__
        for item in self.fields:
            if item.name in RESERVED:
                raise SettingsError(f"{owner}.{item.name}: every event table has a column of that name already")
        by_name = {item.name: item for item in self.fields}
        event_time = by_name.get("event_time")
        if event_time is None or event_time.python_type is not datetime or event_time.nullable:
            raise SettingsError(
                f'{owner} needs a field `event_time: datetime`, for example `= field(name="timestamp")`'
            )

    def _check_asset(self) -> None:
        for key, value in self.tags.items():
            if not _TAG.fullmatch(key) or key.startswith("dagster/"):
                raise SettingsError(
                    f"stream {self.name}: tag {key!r} is not `key` or `namespace/key`, each of up to 63 of A-Z, a-z,"
                    " 0-9, _, . and -; the namespace dagster is Dagster's own"
                )
            if not _TAG_VALUE.fullmatch(value):
                raise SettingsError(
                    f"stream {self.name}: the value of tag {key} is not up to 63 of A-Z, a-z, 0-9, _, . and -"
                )
        if self.max_silence is not None and self.max_silence < LEAST_SILENCE:
            raise SettingsError(f"stream {self.name}: max_silence is {self.max_silence}, at least a minute is needed")


def by_name(streams: Iterable[Stream]) -> dict[str, Stream]:
    """The streams by name. Raises SettingsError when two share a name, a topic or a table."""
    found: dict[str, Stream] = {}
    for stream in streams:
        for other in found.values():
            for what in ("name", "topic", "table"):
                if getattr(stream, what) == getattr(other, what):
                    raise SettingsError(
                        f"streams {other.name} and {stream.name} share the {what} {getattr(stream, what)!r}"
                    )
        found[stream.name] = stream
    return found

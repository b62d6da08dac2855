"""A stream: topic → event type → table."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import msgspec

from .choices import OnConflict
from .column_names import TableName, check_fields, check_option_names, check_sizes, taken_names
from .columns import COORDINATE_COLUMNS, INGESTED_AT, KAFKA_TIMESTAMP, ORDINAL, Column, FilledBy, column_of
from .definition import described
from .errors import SettingsError
from .fields import Field, check_event
from .formats import JSON, Format
from .nesting import Shape, shape_of
from .option_checks import check_asset, check_format, check_key, check_many, check_table
from .partitioning import PartitionBy, check_partitioning
from .record import STAMP
from .record_columns import RecordColumns, frame_of
from .route import Route, check_route

COORDINATES = tuple(column.name for column in COORDINATE_COLUMNS)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True)
class Stream:
    """One topic drained into one table.

    Attributes:
        name: of the asset and the consumer group (`<KAFKA_GROUP_PREFIX><name>`). In upper case, the prefix of the
            stream's settings (`PRICE_BATCH_SIZE`).
        event: a msgspec Struct. Its fields are the table's columns. A datetime called `event_time` gets an index. For
            another JSON key: `event_time: datetime = field(name="timestamp")`.
        topic: defaults to the name.
        table: a table in DATABASE_SCHEMA, or `schema.table`. Defaults to the name.
        owners: Dagster owners of the asset ("team:x" or an e-mail address).
        key_column: optional column for the record's key.
        key_type: bytes, or str for a text column. With str, a record whose key is not UTF-8 becomes a dead letter.
        headers_column: optional column for the headers, as a jsonb list of [key, base64 of the value].
        extra_column: optional column for undeclared JSON keys, as a jsonb object. Null without such keys.
        id_column: optional column for a row number from a sequence of the database.
        tags: Dagster tags of the asset.
        allow_unlogged: permits an UNLOGGED table. A crash of PostgreSQL empties the table for good.
        max_silence: the asset turns stale after this time without a materialization. None: an idle topic is fine.
        topic_asset: last part of the topic's asset key. Defaults to the topic with _ in place of . and -. Topics that
            differ only in these signs need different values.
        job: of the Dagster job (`drain_<job>`) and its sensor (`<job>_sensor`). Streams with the same job share its
            runs. In upper case, the prefix of the settings of a run (`PRICE_PARALLELISM`). Defaults to the name.
        format: of the records' values: Json(), Avro(), Protobuf(), JsonSchema() or Csv().
        envelope: around the event: "debezium" or "cloudevents".
        key: columns that identify a row, fields or the key_column. A row whose key is in the table is an upsert.
            Default: no key, every record is a row.
        on_conflict: "update" the row of the same key, or "ignore" the record.
        only_newer: a field. An update with a lower value is skipped. Equal values update.
        deletes: a tombstone, or a Debezium deletion, deletes the row of its key.
        coordinates: False for a table that exists and has none of the columns that this package adds.
        partition_by: "day", "week" or "month" of event_time: the table has a partition for each.
        keep: the job `maintenance` drops partitions older than this. None: no partition is dropped.
        timestamp_zone: of the columns `timestamp without time zone` in a table that exists, such as "UTC".
        transform: a pure function from an event to the event to store, or to None for no row. An exception sends the
            record to the dead letters.
        settings: the stream's and its job's, such as {"batch_size": 5000}. PRICE_BATCH_SIZE in the environment beats
            such a value, which beats BATCH_SIZE.
        topic_column: optional column for the topic's name, with which several streams can share a table.
        route: more tables, by the value of a field. `event` is the Struct of the tables for which it names no Struct.
        many: a record holds a JSON array of events, or `transform` returns a list. Column `kafka_ordinal` numbers the
            rows of a record. All rows of a record are stored, or none.

    Raises:
        SettingsError: a name or a field cannot be used. The message gives the reason.
    """

    name: str
    event: type[msgspec.Struct]
    topic: str = ""
    table: str = ""
    owners: tuple[str, ...] = ()
    key_column: str = ""
    key_type: type[bytes] | type[str] = bytes
    headers_column: str = ""
    extra_column: str = ""
    id_column: str = ""
    allow_unlogged: bool = False
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    max_silence: timedelta | None = None
    topic_asset: str = ""
    job: str = ""
    format: Format = JSON
    envelope: str = ""
    key: tuple[str, ...] = ()
    on_conflict: str = OnConflict.UPDATE
    only_newer: str = ""
    deletes: bool = False
    coordinates: bool = True
    timestamp_zone: str = ""
    partition_by: str = PartitionBy.NONE
    keep: timedelta | None = None
    transform: Callable[[Any], Any] | None = None
    settings: Mapping[str, object] = field(default_factory=dict, hash=False)
    many: bool = False
    topic_column: str = ""
    route: Route | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "topic", self.topic or self.name)
        object.__setattr__(self, "table", self.table or self.name)
        object.__setattr__(self, "job", self.job or self.name)
        if not _NAME.fullmatch(self.name):
            raise SettingsError(f"stream {self.name!r}: a name is a lower-case letter, then up to 39 of a-z, 0-9 and _")
        if not _NAME.fullmatch(self.job):
            raise SettingsError(
                f"stream {self.name}: job {self.job!r} is not a lower-case letter, then up to 39 of a-z, 0-9 and _"
            )
        if not _TOPIC.fullmatch(self.topic) or self.topic in (".", ".."):
            raise SettingsError(f"stream {self.name}: {self.topic!r} is not a name Kafka allows for a topic")
        check_event(self.name, self.event)
        check_fields(self.name, self.event.__name__, self.fields, taken_names(self.coordinates))
        self._check_options()
        for table in self.tables:
            check_sizes(self.name, table.table_name, [column.name for column in table.table_columns])
        check_asset(self.name, self.topic_asset_name, self.tags, self.max_silence)

    @property
    def description(self) -> str:
        """The Struct's docstring without its indentation, or ""."""
        return inspect.cleandoc(self.event.__doc__ or "")

    @cached_property
    def table_name(self) -> TableName:
        return TableName.parsed(self.name, self.table)

    @cached_property
    def tables(self) -> tuple[Stream, ...]:
        """The stream itself. With a route, the stream once for each table, as if it had only this table."""
        if self.route is None:
            return (self,)
        events = dict(self.route.targets(self.table, self.event))
        return tuple(replace(self, route=None, table=table, event=event) for table, event in events.items())

    @property
    def topic_asset_name(self) -> str:
        """The last part of the topic's asset key, in the characters that Dagster allows."""
        return self.topic_asset or re.sub(r"[^A-Za-z0-9_]", "_", self.topic)

    @cached_property
    def shape(self) -> Shape:
        """The event's declared fields, including nested Structs."""
        return shape_of(self.event)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields that are columns, in declared order."""
        return self.shape.leaves

    @property
    def has_event_time(self) -> bool:
        return any(item.name == "event_time" and item.python_type is datetime for item in self.fields)

    @cached_property
    def record_columns(self) -> RecordColumns:
        return RecordColumns(
            self.key_type if self.key_column else None,
            bool(self.headers_column),
            key_required=bool(self.key_column) and self.key_column in self.key,
            frame=frame_of(self.format, self.envelope),
            topic=self.topic if self.topic_column else "",
        )

    @cached_property
    def row_columns(self) -> tuple[Column, ...]:
        """The columns a row fills, in the order of an EventRow's items and, with `many`, of an element's."""
        topic = [column_of(self.topic_column, str)] if self.topic_column else []
        nullable_key = self.key_column not in self.key
        key = [column_of(self.key_column, self.key_type, nullable_key)] if self.key_column else []
        headers = [column_of(self.headers_column, list, nullable=True)] if self.headers_column else []
        ordinal = [ORDINAL] if self.many else []
        event = [column_of(item.name, item.python_type, item.nullable) for item in self.fields]
        extra = [column_of(self.extra_column, dict, nullable=True)] if self.extra_column else []
        return (*COORDINATE_COLUMNS, KAFKA_TIMESTAMP, *topic, *key, *headers, *ordinal, *event, *extra)

    @property
    def finds_by_coordinates(self) -> bool:
        """Whether an index of the table finds rows by Kafka coordinates."""
        return self.coordinates and not self.key

    @cached_property
    def written_columns(self) -> tuple[Column, ...]:
        """The columns that a run writes, in the order of an EventRow's items."""
        return self.row_columns if self.coordinates else self.row_columns[STAMP + 1 :]

    @cached_property
    def table_columns(self) -> tuple[Column, ...]:
        """All columns in the table's order, including columns that the database fills."""
        if not self.coordinates:
            return self.written_columns
        number = [column_of(self.id_column, int, filled_by=FilledBy.SEQUENCE)] if self.id_column else []
        ordinal = [ORDINAL] if self.many else []
        record_and_event = [column for column in self.row_columns[len(COORDINATES) + 1 :] if column not in ordinal]
        return (*COORDINATE_COLUMNS, *ordinal, *number, *record_and_event, KAFKA_TIMESTAMP, INGESTED_AT)

    @property
    def primary_key(self) -> tuple[str, ...]:
        if self.key:
            return self.key
        added = (ORDINAL.name if self.many else "", self.topic_column, "event_time" if self.partition_by else "")
        return (*COORDINATES, *filter(None, added))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of `row_columns`."""
        return tuple(column.name for column in self.row_columns)

    def definition(self, *extra: object) -> str:
        """A short hash of the rules that turn a record into a row, of the job and of `extra`. Equal in all processes.

        A changed check changes the hash, so a failed stream is retried at once.
        """
        shape = [(item.name, item.path, item.pg_type, item.nullable) for item in self.fields]
        added: list[object] = [(self._options, self.key_type.__name__)] if any(self._options.values()) else []
        if self.format != JSON or self.envelope:
            added.append((self.format, self.envelope))
        if self.transform is not None:
            added.append(described(self.transform))
        if self.many:
            added.append("many")
        if self.key:
            added.append(("key", self.key, str(self.on_conflict), self.only_newer, self.deletes))
        if self.partition_by:
            added.append(f"by {self.partition_by}")
        if not self.coordinates:
            added.append(("no coordinates", self.timestamp_zone))
        if self.topic_column:
            added.append(f"topic in {self.topic_column}")
        if self.route is not None:
            numbers = self.route.numbers([table.table for table in self.tables])
            tables = [table.definition() for table in self.tables]
            added.append((self.route.field, str(self.route.others), numbers, tables))
        if self.job != self.name:
            added.append(f"job {self.job}")
        text = repr((self.name, self.topic, self.table, shape, *added, self._meaning, extra))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def _meaning(self) -> str:
        return described(self.event)

    @property
    def _options(self) -> dict[str, str]:
        names = ("key_column", "headers_column", "extra_column", "id_column")
        return {name: getattr(self, name) for name in names}

    def _check_options(self) -> None:
        taken = taken_names(self.coordinates)
        taken |= {item.name: f"{self.event.__name__} has a field of that name" for item in self.fields}
        check_option_names(self.name, {**self._options, "topic_column": self.topic_column}, taken)
        if self.key_type not in (bytes, str) or (self.key_type is str and not self.key_column):
            raise SettingsError(f"stream {self.name}: key_type is bytes or str, and the type of a key_column")
        try:
            needing = {name: getattr(self, name) for name in ("id_column", "many", "key", "partition_by")}
            check_table(self.coordinates, self.timestamp_zone, needing)
            check_partitioning(
                self.partition_by, self.keep, self.fields, {"id_column": self.id_column, "key": self.key}
            )
            check_format(self.format, self.envelope, self.shape, self.extra_column)
            if self.many:
                names = [column.name for column in self.row_columns]
                check_many(self.format, self.envelope, self.shape, self.transform, columns=names)
            options = ("on_conflict", "only_newer", "deletes", "many", "key_column")
            check_key(self.key, self.row_columns, **{name: getattr(self, name) for name in options})
            if self.route is not None:
                check_route(
                    self.route,
                    self.table,
                    self.event,
                    has_own_table=self.table != self.name,
                    record_format=self.format,
                    of_one_table={"key": self.key, "many": self.many},
                )
        except SettingsError as error:
            raise SettingsError(f"stream {self.name}: {error.message}") from None

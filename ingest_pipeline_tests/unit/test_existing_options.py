"""The options of a stream into a table that exists."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.replays import ReplayRequest, ranges
from ingest_pipeline.orchestration.described import column_schema, table_metadata
from ingest_pipeline.postgres.table_reads import ddl
from ingest_pipeline.settings import Settings


class Event(msgspec.Struct):
    """One event."""

    kafka_offset: int
    event_time: datetime


PLAIN = Stream("reading", msgspec.defstruct("Plain", [("event_time", datetime)]))
EXISTING = Stream("reading", Event, coordinates=False)


def test_no_name_is_reserved_for_our_columns() -> None:
    with pytest.raises(SettingsError, match=r"Event\.kafka_offset: every event table has a column of that name"):
        Stream("reading", Event)
    assert [column.name for column in EXISTING.table_columns] == ["kafka_offset", "event_time"]
    value = b'{"kafka_offset": 1, "event_time": "2026-01-01T00:00:00Z"}'
    assert JsonDecoder(EXISTING).decode(value)[0] == 1


def test_the_statement_to_create_the_table_has_only_the_fields() -> None:
    statement = ddl(EXISTING, "public")
    assert "kafka_partition" not in statement
    assert "PRIMARY KEY" not in statement
    assert "INDEX" not in statement
    assert "kafka_offset BIGINT NOT NULL" in statement


def test_dagster_shows_neither_our_key_nor_a_query_by_it() -> None:
    assert column_schema(EXISTING).constraints.other == []
    assert [column.description for column in column_schema(EXISTING).columns] == [None, None]
    metadata = table_metadata(EXISTING, Settings())
    assert "newest_rows_sql" not in metadata
    assert "newest_rows_sql" in table_metadata(PLAIN, Settings())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timestamp_zone": "UTC"}, "timestamp_zone is for a table that exists, with coordinates=False"),
        ({"coordinates": False, "timestamp_zone": "Mars"}, "timestamp_zone 'Mars' is not a time zone, such as UTC"),
        ({"coordinates": False, "timestamp_zone": "../etc"}, "is not a time zone"),
        ({"coordinates": False, "key": ("event_time",)}, "key is for a table with the Kafka coordinates"),
        ({"coordinates": False, "many": True}, "many is for a table with the Kafka coordinates"),
        ({"coordinates": False, "id_column": "id"}, "id_column is for a table with the Kafka coordinates"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        replace(PLAIN, **options)


def test_each_option_changes_the_definition() -> None:
    streams = [PLAIN, replace(PLAIN, coordinates=False), replace(PLAIN, coordinates=False, timestamp_zone="UTC")]
    assert len({stream.definition() for stream in streams}) == 3


def test_a_replay_is_refused_with_the_reason() -> None:
    context: Any = SimpleNamespace(stream=EXISTING)
    with pytest.raises(SettingsError, match="reading has coordinates=False: a replay tells the stored records"):
        ranges(ReplayRequest(partition=0, from_offset=0, to_offset=1), context)

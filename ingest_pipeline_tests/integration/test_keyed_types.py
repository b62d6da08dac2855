"""Keys of several columns and types, in a table that was made by hand."""

import json
import uuid
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from ingest_pipeline import Stream
from ingest_pipeline.core.record import Message
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import make_batch


class Part(msgspec.Struct):
    unit: uuid.UUID
    number: Decimal
    text: str
    day: date
    good: bool
    value: int


STREAM = Stream("part", Part, key=("text", "number", "unit", "day", "good"), deletes=True)
TABLE = """
    CREATE TABLE part (
        value bigint NOT NULL, day date, good boolean, text text, unit uuid, number numeric, note text DEFAULT 'new',
        ingested_at timestamptz NOT NULL DEFAULT now(), kafka_timestamp timestamptz, kafka_offset bigint NOT NULL,
        kafka_partition integer NOT NULL, kafka_incarnation smallint NOT NULL,
        PRIMARY KEY (number, good, day, text, unit))"""
UNIT = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
Record = tuple[dict[str, Any], int | None]


def key(text: str, number: Any, unit: str = UNIT) -> dict[str, Any]:
    return {"unit": unit, "number": number, "text": text, "day": "2026-01-01", "good": True}


@pytest.fixture(params=["copy", "executemany"])
def bench(database_url: str, request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Bench(database_url, STREAM, method=request.param) as made:
        made.sql(TABLE)
        yield made.begin()


def write(bench: Bench, *records: Record) -> list[str]:
    """Write (key, value) as one batch. None deletes. Returns the reasons of dead letters."""
    start = bench.session.positions[0].resume_at.next_offset
    messages: list[Message] = [
        MemoryMessage(
            0,
            start + i,
            0,
            None if value is None else json.dumps({**fields, "value": value}).encode(),
            key=json.dumps(fields).encode(),
        )
        for i, (fields, value) in enumerate(records)
    ]
    return list(bench.session.write(make_batch(bench.session.positions, messages, stream=STREAM)).reasons)


def test_equal_keys_in_other_notations_are_one_row(bench: Bench) -> None:
    write(bench, (key("A", "1.0"), 1), (key("a", "1.0"), 2), (key("A", 1), 3))
    write(bench, (key("A", "1.00", UNIT.upper()), 4), (key("", "1"), 5), (key("A", "1.001"), 6))
    assert bench.sql("SELECT text, value, note FROM part ORDER BY value") == [
        ("a", 2, "new"),
        ("A", 4, "new"),
        ("", 5, "new"),
        ("A", 6, "new"),
    ]


def test_a_deletion_finds_the_row_by_values(bench: Bench) -> None:
    write(bench, (key("A", "1.0"), 1), (key("a", "1.0"), 2))
    assert write(bench, (key("A", "1.000", UNIT.upper()), None), (key("unknown", 1), None)) == []
    assert bench.sql("SELECT text FROM part") == ["a"]


def test_nul_in_a_key_is_one_dead_letter(bench: Bench) -> None:
    assert write(bench, (key("A", 1), 1), (key("A\0", 1), 2), (key("\0", 1), None)) == [
        "NUL character, which PostgreSQL cannot store - at `$.text`",
        "NUL character in the record's key",
    ]
    assert bench.sql("SELECT text FROM part") == ["A"]

"""The steps in docs/tables.md to a hypertable, with a function in place of TimescaleDB's."""

import json
import re
from datetime import datetime
from pathlib import Path

import msgspec
import psycopg
import pytest

from ingest_pipeline import Stream
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import BAD

PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
(STEP,) = re.findall(r"SELECT create_hypertable.*", PAGE)
EXTENSION = """
    CREATE FUNCTION by_range(name text) RETURNS text LANGUAGE sql AS 'SELECT name';
    CREATE FUNCTION create_hypertable(relation regclass, dimension text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        ASSERT (SELECT relkind = 'r' FROM pg_class WHERE oid = relation), 'table is already partitioned';
        ASSERT NOT EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = relation AND i.indisunique AND NOT EXISTS (
                SELECT FROM pg_attribute a
                WHERE a.attrelid = relation AND a.attnum = ANY(i.indkey) AND a.attname = dimension)),
            'unique index without the time column';
        EXECUTE format('CREATE TABLE _hyper_1_1_chunk (LIKE %1$s INCLUDING ALL) INHERITS (%1$s)', relation);
    END $$"""
"""Checks what TimescaleDB's documentation demands of a table, and makes a chunk, which inherits from the table."""


class Reading(msgspec.Struct):
    device_id: str
    celsius: float
    event_time: datetime


KEYED = Stream("reading", Reading, key=("device_id", "event_time"))


def reading(device: str, celsius: float) -> bytes:
    return json.dumps({"device_id": device, "celsius": celsius, "event_time": "2026-01-01T00:00:00Z"}).encode()


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_a_keyed_table_can_become_a_hypertable(database_url: str, method: str) -> None:
    with Bench(database_url, KEYED, method=method) as bench:
        bench.ledger.prepare()
        bench.sql(EXTENSION)
        bench.sql(STEP)
        bench.begin()
        assert bench.differences() == []
        bench.write([reading("a", 1), reading("b", 1), BAD])
        bench.write([reading("a", 2)])
        assert bench.sql("SELECT device_id, celsius FROM reading ORDER BY 1") == [("a", 2.0), ("b", 1.0)]


@pytest.mark.parametrize(
    ("stream", "refusal"),
    [
        (Stream("reading", Reading), "unique index without the time column"),
        (Stream("reading", Reading, partition_by="day"), "table is already partitioned"),
    ],
    ids=["no key", "partition_by"],
)
def test_another_table_cannot_become_a_hypertable(database_url: str, stream: Stream, refusal: str) -> None:
    with Bench(database_url, stream) as bench:
        bench.ledger.prepare()
        bench.sql(EXTENSION)
        with pytest.raises(psycopg.errors.AssertFailure, match=refusal):
            bench.sql(STEP)

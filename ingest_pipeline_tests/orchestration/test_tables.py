"""`ingest tail`, `ingest schema` and `ingest status --watch` on real rows."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import dagster as dg
import msgspec
import psycopg
import pytest

from ingest_pipeline import Stream
from ingest_pipeline.core.roles import Role
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.commands import ingest, interruptible
from ingest_pipeline_tests.orchestration.records import Record, temperatures

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]
_COLUMNS = """
    SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns
    WHERE table_name = 'temperature' ORDER BY ordinal_position"""
_NEWEST = "SELECT kafka_partition, kafka_offset FROM temperature ORDER BY ingested_at DESC, kafka_offset DESC LIMIT 3"


def test_tail_shows_the_newest_rows_first(make_bench: Make) -> None:
    bench = make_bench()
    for _ in range(2):
        bench.produce(temperatures(15))
        bench.drain()
    shown = ingest(bench, "tail", "temperature", "-n", "3").splitlines()
    assert shown[0].split()[:3] == ["kafka_incarnation", "kafka_partition", "kafka_offset"]
    assert [tuple(map(int, line.split()[1:3])) for line in shown[1:]] == bench.query(_NEWEST)


def test_commands_print_json(make_bench: Make) -> None:
    class Meter(msgspec.Struct):
        price: Decimal
        tags: dict[str, Any]
        raw: bytes
        event_time: datetime

    meters = make_bench([Stream("meter", Meter)], partitions=1)
    value = (
        b'{"price": "1.50", "tags": {"a": [1, "\xc3\xa9"]}, "raw": "AP8=", "event_time": "2026-01-01T01:00:00+01:00"}'
    )
    meters.produce([Record(value, 0), Record(b"{", 0)])
    meters.drain()
    (row,) = json.loads(ingest(meters, "tail", "meter", "--json"))
    assert row | {"price": "1.50", "tags": {"a": [1, "é"]}, "raw": "AP8=", "kafka_offset": 0} == row
    assert row["event_time"] == "2026-01-01T00:00:00+00:00"
    assert '{"a": [1, "é"]}' in ingest(meters, "tail", "meter")
    listed = json.loads(ingest(meters, "dead-letters", "list", "meter", "--json"))
    assert listed["reasons"] == [{"letters": 1, "stage": "decode", "reason": "Input data was truncated"}]
    assert [(letter["partition"], letter["offset"]) for letter in listed["letters"]] == [(0, 1)]
    assert datetime.fromisoformat(listed["letters"][0]["failed_at"]).tzinfo is not None
    settings = {row["name"]: row for row in json.loads(ingest(meters, "settings", "--json"))}
    assert (settings["BATCH_TIMEOUT"]["value"], settings["BATCH_TIMEOUT"]["scope"]) == ("0.1", "stream")
    checks = json.loads(ingest(meters, "check", "--json"))
    assert {"ok": True, "what": "table of meter", "message": "as declared"} in checks


@pytest.mark.role(Role.OWNER)
def test_tail_before_there_is_a_table_is_one_line(make_bench: Make) -> None:
    shown = ingest(make_bench(), "tail", "temperature", code=1)
    assert shown.startswith("Error: ")
    assert shown.count("\n") == 1


def test_the_schema_makes_the_table_that_a_run_makes(make_bench: Make) -> None:
    bench = make_bench()
    bench.drain()
    made = bench.query(_COLUMNS)
    with psycopg.connect(bench.url, autocommit=True) as connection:
        connection.execute("DROP TABLE temperature")
        connection.execute(ingest(bench, "schema", "temperature"))  # type: ignore[arg-type]
    assert bench.query(_COLUMNS) == made
    bench.produce(temperatures(3))
    bench.drain()
    assert bench.rows() == 3


def test_the_queries_in_the_assets_metadata_answer_as_they_are(make_bench: Make) -> None:
    odd = replace(STREAMS[0], table='odd "table"; %s :x {y}')
    bench = make_bench([odd])
    for _ in range(2):
        bench.produce([*temperatures(15), *(record._replace(value=b"?") for record in temperatures(2))])
        bench.drain()
    metadata = bench.definitions.resolve_asset_graph().get(dg.AssetKey("temperature")).metadata
    newest, letters = (
        metadata[name].value.removeprefix("```sql\n").removesuffix("\n```")
        for name in ("newest_rows_sql", "open_dead_letters_sql")
    )
    with psycopg.connect(bench.url) as connection:
        cursor = connection.execute(newest)
        schema = metadata["dagster/column_schema"]
        assert [column.name for column in cursor.description or ()] == [column.name for column in schema.columns]
        times = [row[-1] for row in cursor]
        assert len(times) == 20
        assert times == sorted(times, reverse=True)
        found = connection.execute(letters).fetchall()
        assert len(found) == 4
        connection.execute("update ingest.dead_letter set status = 'discarded' where id = %s", [found[0][0]])
        assert [row[0] for row in connection.execute(letters)] == [row[0] for row in found[1:]]


def test_watch_looks_again_until_it_is_interrupted(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(5))
    bench.drain()
    control, terminal = pty.openpty()
    command = [sys.executable, "-m", "ingest_pipeline.cli.main", "status", "--watch"]
    environ = {**os.environ, **bench.environ, "TERM": "xterm", "COLUMNS": "160"}
    watching = subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environ, preexec_fn=interruptible)
    os.close(terminal)

    def draws(words: bytes) -> None:
        drawn = b""
        while words not in drawn:
            drawn += os.read(control, 4096)

    draws(b"temperature")
    ingest(bench, "pause", "temperature", "--reason", "seen by the next look")
    draws(b"seen by the next look")
    watching.send_signal(signal.SIGINT)
    while watching.poll() is None:
        try:
            os.read(control, 4096)
        except OSError:  # the terminal's other end is closed
            break
    assert watching.wait() == 0
    os.close(control)

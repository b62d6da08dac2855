"""Upserts into a table of a million keys, beside plain inserts and one INSERT … ON CONFLICT for each row."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec
import psycopg

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.record import Message, NextOffset, TopicIdentity
from ingest_pipeline.core.rows import DEFAULT_RULES, decode_batch
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.postgres.schema import migrate
from ingest_pipeline.postgres.session import PostgresLedgerSession
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.postgres.writing_connection import PostgresWritingConnection
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline.testing.log import MemoryMessage

from . import document
from .effort import Effort
from .system import System

BATCH, KEYS, ROUNDS = 10_000, 1_000_000, 15
INSERT, UPSERT, NEWER = "plain insert", "upsert", "upsert with only_newer"
EXECUTEMANY, PER_ROW = "upsert, `WRITE_METHOD=executemany`", "batched INSERT … ON CONFLICT for each row"
_SCHEMAS = Schemas("upsert", "upsert_ledger")


class Reading(msgspec.Struct):
    device_id: str
    temperature: float
    event_time: datetime


class Design:
    """A stream with a session of its own."""

    def __init__(self, database: Database, stream: Stream, write_method: str = "copy") -> None:
        ledger = PostgresLedger(database, stream)
        ledger.begin(TopicIdentity(None, None, 1), {0: NextOffset(0)}, first=True)
        self.connection = PostgresWritingConnection(database, stream.name)
        self._session = PostgresLedgerSession(self.connection, stream, write_method=write_method, batch_size=BATCH)
        self._session.own((0,), exact=True)
        self._decoder, self._next = JsonDecoder(stream), 0

    def write(self, devices: Sequence[int]) -> float:
        """Seconds to decode and commit a record of each device."""
        messages: list[Message] = [
            MemoryMessage(0, self._next + i, 0, _value(device), timestamp_ms=1_700_000_000_000)
            for i, device in enumerate(devices)
        ]
        self._next += len(messages)
        started = time.monotonic()
        batch = decode_batch(
            messages,
            {},
            self._session.positions,
            decode=self._decoder.decode,
            decode_many=self._decoder.decode_many,
            rules=DEFAULT_RULES,
        )
        assert batch is not None
        self._session.write(batch)
        return time.monotonic() - started


def section(running: System, effort: Effort) -> str:
    database = Database(sqlalchemy_url(running.database_url), _SCHEMAS)
    key, keys = ("device_id",), effort.of(KEYS)
    streams = [
        Stream("plain", Reading),
        Stream("latest", Reading, key=key),
        Stream("newest", Reading, key=key, only_newer="event_time"),
        Stream("latest_many", Reading, key=key),
        Stream("per_row", Reading, key=key),
    ]
    migrate(database, streams)
    for stream in streams[1:]:
        running.execute(
            f"INSERT INTO upsert.{stream.table} (kafka_incarnation, kafka_partition, kafka_offset, device_id,"
            " temperature, event_time) SELECT 1, 0, 0, 'dev-' || lpad(i::text, 7, '0'), 21.5, '2026-01-01'"
            f" FROM generate_series(0, {keys - 1}) AS i"
        )
    running.execute("VACUUM ANALYZE")
    plain, latest, newest, latest_many = streams[:4]
    designs = {
        INSERT: Design(database, plain),
        UPSERT: Design(database, latest),
        NEWER: Design(database, newest),
        EXECUTEMANY: Design(database, latest_many, "executemany"),
    }
    writes: dict[str, Callable[[Sequence[int]], float]] = {name: design.write for name, design in designs.items()}
    writes[PER_ROW] = lambda devices: _write_rows(running, devices)
    seconds = dict.fromkeys(writes, 0.0)
    rounds, chosen = effort.of(ROUNDS), random.Random(1)
    with progress("batches", rounds) as show:
        for number in range(rounds):
            for design in designs.values():
                design.connection.heartbeat()  # PostgreSQL ends a writing session that is idle for long
            for name in chosen.sample(list(writes), len(writes)):
                seconds[name] += writes[name](chosen.choices(range(keys), k=BATCH))
            show(number + 1)
    for design in designs.values():
        design.connection.close()
    database.dispose()
    for schema in (_SCHEMAS.events, _SCHEMAS.ledger):
        running.execute(f"DROP SCHEMA {schema} CASCADE")
    rates = {name: rounds * BATCH / spent for name, spent in seconds.items()}
    rows = [
        (name, f"{rate:,.0f}", f"{rate / rates[INSERT]:.2f}", f"{rate / rates[PER_ROW]:.1f}")
        for name, rate in rates.items()
    ]
    return (
        f"Records of {keys:,} random keys, decoded and committed in batches of {BATCH:,}. The last line is the way that"
        " the documentation of Confluent's JDBC sink describes: one prepared statement for each row, sent in batches."
        " Its records are decoded, and no position is stored. The rates are from one process without Kafka.\n\n"
        + document.table(["design", "rows/s", "of the plain insert", "of one statement a row"], rows)
    )


def _value(device: int) -> bytes:
    return b'{"device_id":"dev-%07d","temperature":21.5,"event_time":"2026-01-01T00:00:00Z"}' % device


def _write_rows(running: System, devices: Sequence[int]) -> float:
    values, decode = list(map(_value, devices)), msgspec.json.Decoder(Reading).decode
    with psycopg.connect(running.database_url) as connection:
        started = time.monotonic()
        events = map(decode, values)
        rows = [(0, i, event.device_id, event.temperature, event.event_time) for i, event in enumerate(events)]
        connection.cursor().executemany(
            "INSERT INTO upsert.per_row (kafka_incarnation, kafka_partition, kafka_offset, device_id, temperature,"
            " event_time) VALUES (1, %s, %s, %s, %s, %s) ON CONFLICT (device_id) DO UPDATE"
            " SET kafka_offset = excluded.kafka_offset, temperature = excluded.temperature,"
            " event_time = excluded.event_time, ingested_at = excluded.ingested_at",
            rows,
        )
        connection.commit()
        return time.monotonic() - started

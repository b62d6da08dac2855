"""Upserts into a table of a million keys, beside plain inserts, the plainest SQL and one statement for each row."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import psutil
import psycopg
from confluent_kafka import TIMESTAMP_CREATE_TIME, Message

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.record import NextOffset, TopicIdentity
from ingest_pipeline.core.rows import DEFAULT_RULES, decode_batch
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.local.postgres import EmbeddedPostgres
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.postgres.schema import migrate
from ingest_pipeline.postgres.session import PostgresLedgerSession
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.postgres.writing_connection import PostgresWritingConnection
from ingest_pipeline.settings.database_url import sqlalchemy_url

from . import document
from .effort import Effort
from .system import System

_CREATED = (TIMESTAMP_CREATE_TIME, 1_700_000_000_000)
BATCH, KEYS, ROUNDS = 10_000, 1_000_000, 30
INSERT, UPSERT, NEWER = "plain insert", "upsert", "upsert with only_newer"
EXECUTEMANY = "upsert, `WRITE_METHOD=executemany`"
PLAINEST, PER_ROW = "COPY and INSERT … SELECT … ON CONFLICT alone", "batched INSERT … ON CONFLICT for each row"
MEMORY = ("1GB", "128MB")
"""shared_buffers of the server: all tables fit in the first. The second is PostgreSQL's default."""
COLUMNS = "kafka_incarnation, kafka_partition, kafka_offset, device_id, temperature, event_time"
UPDATE = """ON CONFLICT (device_id) DO UPDATE
    SET kafka_offset = excluded.kafka_offset, temperature = excluded.temperature, event_time = excluded.event_time,
        ingested_at = excluded.ingested_at"""
_SCHEMAS = Schemas("upsert", "upsert_ledger")


class Reading(msgspec.Struct):
    device_id: str
    temperature: float
    event_time: datetime


class Meter:
    """Adds up seconds, and the CPU seconds of this process and of a session's process of PostgreSQL."""

    def __init__(self, session_pid: int) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self._session = psutil.Process(session_pid)

    @contextmanager
    def running(self) -> Iterator[None]:
        started, used = time.monotonic(), self._cpu_seconds()
        yield
        self.seconds += time.monotonic() - started
        self.cpu_seconds += self._cpu_seconds() - used

    def _cpu_seconds(self) -> float:
        times = self._session.cpu_times()
        return time.process_time() + times.user + times.system


class Design:
    """A stream with a session of its own."""

    def __init__(self, database: Database, stream: Stream, write_method: str = "copy") -> None:
        ledger = PostgresLedger(database, stream)
        ledger.begin(TopicIdentity(None, None, 1), {0: NextOffset(0)}, first=True)
        self.connection = PostgresWritingConnection(database, stream.name)
        self.meter = Meter(self.connection.driver_connection.info.backend_pid)
        self._session = PostgresLedgerSession(self.connection, stream, write_method=write_method, rows_per_insert=BATCH)
        self._session.own((0,), exact=True)
        self._decoder, self._next = JsonDecoder(stream), 0

    def write(self, devices: Sequence[int]) -> None:
        """Decode and commit a record of each device."""
        messages = [
            Message(partition=0, offset=self._next + i, value=_value(device), timestamp=_CREATED)
            for i, device in enumerate(devices)
        ]
        self._next += len(messages)
        with self.meter.running():
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


class ByHand:
    """A session without ledger and dead letters, whose records are decoded."""

    def __init__(self, url: str) -> None:
        self.connection, self._decode = psycopg.connect(url), msgspec.json.Decoder(Reading).decode
        self.meter = Meter(self.connection.info.backend_pid)
        self.connection.execute(
            "CREATE TEMPORARY TABLE sent (kafka_incarnation smallint, kafka_partition integer, kafka_offset bigint,"
            " device_id text, temperature double precision, event_time timestamptz) ON COMMIT DELETE ROWS"
        )
        self.connection.commit()

    def write_together(self, devices: Sequence[int]) -> None:
        values, cursor = list(map(_value, devices)), self.connection.cursor()
        with self.meter.running():
            last = {row[3]: row for row in self._rows(values)}
            with cursor.copy(f"COPY sent ({COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int2", "int4", "int8", "text", "float8", "timestamptz"])
                for row in last.values():
                    copy.write_row(row)
            cursor.execute(f"INSERT INTO upsert.plainest ({COLUMNS}) SELECT {COLUMNS} FROM sent {UPDATE}")
            self.connection.commit()

    def write_each(self, devices: Sequence[int]) -> None:
        values, cursor = list(map(_value, devices)), self.connection.cursor()
        with self.meter.running():
            cursor.executemany(
                f"INSERT INTO upsert.per_row ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s) {UPDATE}", self._rows(values)
            )
            self.connection.commit()

    def _rows(self, values: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        for i, event in enumerate(map(self._decode, values)):
            yield 1, 0, i, event.device_id, event.temperature, event.event_time


def section(running: System, effort: Effort) -> str:
    keys = effort.of(KEYS)
    parts = [
        f"Records of {keys:,} random keys, decoded and committed in batches of {BATCH:,}, from one process without"
        " Kafka. The last two designs store no position. One is the least that an upsert by COPY can do. The other is"
        " the way that the documentation of Confluent's JDBC sink describes: one prepared statement for each row, sent"
        " in batches. An insert appends to table and index, and an upsert reads and changes as many pages as rows. CPU"
        " is that of the process and of its session in PostgreSQL. The last column compares it with the plain insert's,"
        " so other work on the machine does not count."
    ]
    for memory in MEMORY:
        folder = running.fresh_folder("upsert")
        with EmbeddedPostgres(folder, options={"shared_buffers": memory}) as server:
            rounds, table = _measured(replace(running, database_url=server.url), effort)
        parts.append(f"shared_buffers={memory}, {rounds} batches of each design in a random order:\n\n{table}")
    return "\n\n".join(parts)


def _measured(running: System, effort: Effort) -> tuple[int, str]:
    """The batches of each design, and the table of results."""
    database = Database(sqlalchemy_url(running.database_url), _SCHEMAS)
    key, keys = ("device_id",), effort.of(KEYS)
    streams = [
        Stream("plain", Reading),
        Stream("latest", Reading, key=key),
        Stream("newest", Reading, key=key, only_newer="event_time"),
        Stream("latest_many", Reading, key=key),
        Stream("plainest", Reading, key=key),
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
    by_hand = {PLAINEST: ByHand(running.database_url), PER_ROW: ByHand(running.database_url)}
    meters = {name: design.meter for name, design in (designs | by_hand).items()}
    writes: dict[str, Callable[[Sequence[int]], None]] = {name: design.write for name, design in designs.items()}
    writes |= {PLAINEST: by_hand[PLAINEST].write_together, PER_ROW: by_hand[PER_ROW].write_each}
    rounds, chosen = effort.of(ROUNDS), random.Random(1)
    with progress("batches", rounds) as show:
        for number in range(rounds):
            for name in chosen.sample(list(writes), len(writes)):
                for design in designs.values():
                    design.connection.heartbeat()  # PostgreSQL ends a writing session that is idle for long
                writes[name](chosen.choices(range(keys), k=BATCH))
            show(number + 1)
    for design in designs.values():
        design.connection.close()
    for session in by_hand.values():
        session.connection.close()
    database.dispose()
    for schema in (_SCHEMAS.events, _SCHEMAS.ledger):
        running.execute(f"DROP SCHEMA {schema} CASCADE")
    written, cpu = rounds * BATCH, {name: meter.cpu_seconds for name, meter in meters.items()}
    rates = {name: written / meter.seconds for name, meter in meters.items()}
    rows = [
        (
            name,
            f"{rates[name]:,.0f}",
            f"{rates[name] / rates[INSERT]:.2f}",
            f"{rates[name] / rates[PER_ROW]:.1f}",
            f"{cpu[name] / written * 1e6:.1f}",
            f"{cpu[INSERT] / cpu[name]:.2f}",
        )
        for name in meters
    ]
    heads = ["design", "rows/s", "of the plain insert", "of one statement a row", "CPU, µs a row", "rate by CPU"]
    return rounds, document.table(heads, rows)


def _value(device: int) -> bytes:
    return b'{"device_id":"dev-%07d","temperature":21.5,"event_time":"2026-01-01T00:00:00Z"}' % device

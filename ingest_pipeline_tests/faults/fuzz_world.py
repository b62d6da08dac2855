"""Writes blocks of fuzzed records to Kafka, drains them by real runs, and looks up every record in PostgreSQL."""

from __future__ import annotations

import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import KafkaError, Message, Producer
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from ingest_pipeline.core.record import STAMP
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.settings import StreamSettings
from ingest_pipeline_tests.faults.fuzz_kinds import records
from ingest_pipeline_tests.faults.fuzz_oracle import letter_problem, needless_refusal, rows_problem, skip_problem
from ingest_pipeline_tests.faults.fuzz_records import FUZZED, Fuzzed
from ingest_pipeline_tests.faults.fuzz_run import drain
from ingest_pipeline_tests.faults.raw_producer import RawProducer
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url

PARTITIONS = 3
LETTER_LIMIT = 1 << 20
_LONG_MAX = str(2**63 - 1)
_ANY_TIME = {"message.timestamp.after.max.ms": _LONG_MAX, "segment.ms": _LONG_MAX, "retention.ms": "-1"}

Where = tuple[int, int]
"""(partition, offset)."""


class FuzzedStream:
    """One stream, its written records and their results."""

    def __init__(self, stream: Stream, world: FuzzWorld) -> None:
        self.stream, self.world = stream, world
        self.ends: Counter[int] = Counter()
        self.kinds: dict[str, Counter[str]] = defaultdict(Counter)
        self.stages: Counter[str] = Counter()
        self.problems: list[str] = []

    def write(self, fuzzed: list[Fuzzed]) -> dict[Where, tuple[Fuzzed, int]]:
        """Coordinates and timestamp of each record. The records of the C library come first, and their coordinates are
        counted."""
        placed: dict[Where, tuple[Fuzzed, int]] = {}
        refused: list[KafkaError] = []
        by_library = [record for record in fuzzed if record.raw_headers is not None]
        for record in by_library:
            assert record.value is not None and record.raw_headers is not None
            topic = self.stream.topic
            key = record.key or b""
            self.world.raw.produce(topic, record.partition, record.value, key=key, headers=record.raw_headers)
            placed[record.partition, self.ends[record.partition]] = record, record.timestamp_ms or 0
            self.ends[record.partition] += 1
        self.world.raw.flush()

        for record in fuzzed:
            if record.raw_headers is not None:
                continue

            def arrived(error: KafkaError | None, message: Message, record: Fuzzed = record) -> None:
                if error is not None:
                    refused.append(error)
                else:
                    placed[message.partition(), message.offset()] = record, message.timestamp()[1]
                    self.ends[message.partition()] = max(self.ends[message.partition()], message.offset() + 1)

            self.world.produce(self.stream.topic, record, arrived)
        assert self.world.producer.flush(60) == 0
        assert refused == []
        return placed

    def check(self, placed: dict[Where, tuple[Fuzzed, int]], starts: dict[int, int]) -> None:
        """Every record of the block is a row, a dead letter or a skipped tombstone, and nothing else exists."""
        left = dict(placed)
        with psycopg.connect(self.world.url, autocommit=True) as connection:
            connection.execute("set timezone to 'UTC'")
            set_json_loads(partial(json.loads, parse_float=Decimal, parse_int=Decimal), connection)
            for partition in range(PARTITIONS):
                rows = self._rows(connection, partition, starts.get(partition, 0))
                for offset, group in groupby(rows, key=itemgetter(0)):
                    self._judge(left, (partition, offset), "row", [row[1:] for row in group])
                for letter in self._letters(connection, partition, starts.get(partition, 0)):
                    self._judge(left, (partition, letter["kafka_offset"]), "dead letter", letter)
        for (partition, offset), (record, _) in left.items():
            self.kinds[record.kind]["skipped"] += 1
            if problem := skip_problem(self.stream, record):
                self._problem((partition, offset), record, problem)

    def _judge(self, left: dict[Where, tuple[Fuzzed, int]], where: Where, became: str, stored: Any) -> None:
        if where not in left:
            self.problems.append(f"{self.stream.name} {where}: a {became} too many")
            return
        record, ms = left.pop(where)
        self.kinds[record.kind][became] += 1
        if record.raw_headers is not None:
            ms = ms or self.world.own_time(self.stream, where)
        if became == "row":
            problem = rows_problem(self.stream, record, ms, stored)
        else:
            self.stages[stored["stage"]] += 1
            problem = letter_problem(record, ms, stored, LETTER_LIMIT) or needless_refusal(self.stream, record, stored)
        if problem:
            self._problem(where, record, problem)

    def _rows(self, connection: psycopg.Connection, partition: int, start: int) -> Iterator[Any]:
        """A value that psycopg cannot read is a problem of that row alone."""
        columns = ["kafka_offset", *self.stream.columns[STAMP:]]
        order = ["kafka_offset", "kafka_ordinal"] if self.stream.many else ["kafka_offset"]
        select = sql.SQL("select {} from {} where kafka_partition = %s and kafka_offset >= %s").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(self.stream.table)
        )
        ordered = sql.SQL(" order by {}").format(sql.SQL(", ").join(map(sql.Identifier, order)))
        cursor = connection.execute(select + ordered, (partition, start))
        for number in range(cursor.rowcount):
            cursor.scroll(number, mode="absolute")  # past one that could not be read
            try:
                yield cursor.fetchone()
            except psycopg.Error as error:
                self.problems.append(f"{self.stream.name} partition {partition}: row {number} cannot be read: {error}")

    def _letters(self, connection: psycopg.Connection, partition: int, start: int) -> Iterator[dict[str, Any]]:
        with connection.cursor(row_factory=dict_row) as cursor:
            yield from cursor.execute(
                "select * from ingest.dead_letter where stream = %s and kafka_partition = %s and kafka_offset >= %s",
                (self.stream.name, partition, start),
            )

    def _problem(self, where: Where, record: Fuzzed, what: str) -> None:
        sent = repr(record.value if record.value is None or len(record.value) < 400 else record.value[:400] + b"...")
        self.problems.append(f"{self.stream.name} {where} {record.kind}: {what}; value {sent}")

    def check_counters(self) -> None:
        """Compare the ledger's own sums with the counted results."""
        with psycopg.connect(self.world.url) as connection:
            counted = connection.execute(
                """select sum(next_offset)::int, sum("rows")::int, sum(dead_letters)::int, sum(skipped)::int,
                    sum(absent + lost)::int from ingest.position where stream = %s""",
                (self.stream.name,),
            ).fetchone()
        outcomes: Counter[str] = sum(self.kinds.values(), Counter())
        expected = (sum(self.ends.values()), outcomes["row"], outcomes["dead letter"], outcomes["skipped"], 0)
        if counted != expected:
            self.problems.append(f"{self.stream.name}: counters {counted}, found {expected}")


class FuzzWorld:
    """The fuzzed streams on Kafka and an empty database."""

    def __init__(self, kafka: RealKafka, url: str, folder: Path) -> None:
        self.kafka, self.url, self.folder = kafka, url, folder
        suffix = uuid.uuid4().hex[:8]
        self.streams = [FuzzedStream(replace(stream, topic=f"{stream.name}-{suffix}"), self) for stream in FUZZED]
        self.environ = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_GROUP_PREFIX": f"fuzz-{suffix}-",
            "DATABASE_URL": pipeline_url(url, [fuzzed.stream for fuzzed in self.streams]),
            "RUN_IDLE_SECONDS": "0",
            "BATCH_TIMEOUT": "0.2",
        }
        if "dead_letter_limit" in StreamSettings.model_fields:
            self.environ["DEAD_LETTER_LIMIT"] = "off"
        self.producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "enable.idempotence": True,  # else a retry changes the order
                "queue.buffering.max.messages": 1_000_000,
                "message.max.bytes": 2_000_000,
            }
        )

    @classmethod
    @contextmanager
    def open(cls, kafka: RealKafka, url: str, folder: Path) -> Iterator[FuzzWorld]:
        world = cls(kafka, url, folder)
        for fuzzed in world.streams:
            kafka.create_topic(fuzzed.stream.topic, PARTITIONS, _ANY_TIME)
        with psycopg.connect(url, autocommit=True) as connection:  # long words fit the table, but no index
            connection.execute("create index on temperature (device_id)")
        try:
            with RawProducer(kafka.bootstrap_servers) as world.raw:
                yield world
        finally:
            for fuzzed in world.streams:
                kafka.delete_topic(fuzzed.stream.topic)

    def block(self, seed: str, count: int, observe: Callable[[int], None] = lambda _: None) -> None:
        """Write, drain and check `count` more records. `observe` receives the number of finished records."""
        checked = 0
        for stream in self.streams:
            starts = dict(stream.ends)
            placed = stream.write(
                records(f"{seed}/{stream.stream.name}", stream.stream, count // len(FUZZED), PARTITIONS)
            )
            if failed := drain(stream.stream, self.environ, self.folder):
                stream.problems.append(f"{stream.stream.name}: the run failed: {failed}")
                return
            stream.check(placed, starts)
            stream.check_counters()
            checked += count // len(FUZZED)
            observe(checked)

    @property
    def problems(self) -> list[str]:
        return [problem for stream in self.streams for problem in stream.problems]

    def produce(self, topic: str, record: Fuzzed, arrived: Any) -> None:
        more: dict[str, Any] = {} if record.timestamp_ms is None else {"timestamp": record.timestamp_ms}
        self.producer.produce(
            topic, record.value, record.key, record.partition, arrived, headers=record.headers, **more
        )
        self.producer.poll(0)

    def own_time(self, stream: Stream, where: Where) -> int:
        """The timestamp that the C library gave to a record. The stored row shows it, since no fuzzed timestamp was
        set."""
        statement = sql.SQL(
            """select (extract(epoch from kafka_timestamp) * 1000)::bigint from {}
               where kafka_partition = %s and kafka_offset = %s union all
               select kafka_timestamp_ms from ingest.dead_letter
               where stream = %s and kafka_partition = %s and kafka_offset = %s"""
        ).format(sql.Identifier(stream.table))
        with psycopg.connect(self.url) as connection:
            row = connection.execute(statement, (*where, stream.name, *where)).fetchone()
        assert row is not None
        return int(row[0])

"""The checks at the end of a chaos run: Kafka's records compared with PostgreSQL's, one by one."""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg
from confluent_kafka import Consumer, KafkaError, TopicPartition

from ingest_pipeline_tests.faults import feed
from ingest_pipeline_tests.faults.chaos_world import World
from ingest_pipeline_tests.faults.producers import PARTITIONS, At, Issued
from ingest_pipeline_tests.faults.shared_streams import DOOMED

_SHOWN = 5
_LOSSES = """select stream, kafka_partition, cause from ingest.loss
    union all select stream, kafka_partition, 'a gap' from ingest.gap"""
_COUNTERS = 'first_offset, next_offset, "rows", dead_letters, skipped, absent, lost'


class Watch:
    """Reads the positions continuously, past the proxy. No offset and no counter may decrease, and the ledger may not
    note a loss or a gap, since no fault of a chaos run removes a record.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._seen: dict[tuple[str, int], tuple[int, ...]] = {}
        self.looks = 0
        self.went_back: list[str] = []
        self.losses: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            try:
                with psycopg.connect(self._world.url, autocommit=True, application_name="watch") as connection:
                    while not self._stop.wait(0.02):
                        self._look(connection)
            except psycopg.OperationalError:  # the server is away: that is one of the faults
                continue

    def _look(self, connection: psycopg.Connection[Any]) -> None:
        statement = f"""select stream, kafka_partition, next_offset, "rows", dead_letters from ingest.position
            where stream <> '{DOOMED}'"""
        for stream, partition, *now in connection.execute(statement):
            before = self._seen.get((stream, partition), (0, 0, 0))
            if any(new < old for new, old in zip(now, before, strict=True)):
                self.went_back.append(
                    f"{stream} {partition}: (next offset, rows, dead letters) {before} → {tuple(now)}"
                )
            self._seen[stream, partition] = tuple(now)
        for stream, partition, cause in connection.execute(_LOSSES):
            if stream == DOOMED:
                continue
            self.losses.add(f"{stream} {partition}: {cause}")
        self.looks += 1


@dataclass
class Log:
    """The records that a read_committed consumer reads from both topics. The key of a record is its number."""

    records: dict[At, int] = field(default_factory=dict)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    altered: list[At] = field(default_factory=list)


def read_log(bootstrap_servers: str) -> Log:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "oracle",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    log = Log()
    topics = [(stream, partition) for stream in feed.SHAPES for partition in range(PARTITIONS)]
    consumer.assign([TopicPartition(stream, partition, 0) for stream, partition in topics])
    while len(log.ends) < len(topics):
        for message in consumer.consume(1000, 1.0):
            stream = str(message.topic())
            coordinates = At(stream, message.partition(), message.offset())  # type: ignore[arg-type]
            if (error := message.error()) is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                log.ends[stream, coordinates.partition] = coordinates.offset
                continue
            log.records[coordinates] = int(message.key() or b"")
            if message.value() != feed.value(stream, log.records[coordinates]):
                log.altered.append(coordinates)
    consumer.close()
    return log


def broker_faults(log: Log, issued: Issued) -> list[str]:
    """Differences between the topics and the producers' own lists. Such a difference is a fault of the test."""
    acknowledged = issued.acknowledged
    lost = [record for record, number in acknowledged.items() if log.records.get(record) != number]
    expected = issued.in_doubt | issued.unplaced
    unknown = [
        record
        for record, number in log.records.items()
        if record not in acknowledged and (record.stream, number) not in expected
    ]
    missing = issued.unplaced - {(record.stream, number) for record, number in log.records.items()}
    return [
        *_differ("acknowledged, but not in the topic", lost),
        *_differ("acknowledged without an offset, but not in the topic", missing),
        *_differ("in the topic, but not acknowledged", unknown),
        *_differ("in the topic with another value", log.altered),
    ]


def differences(world: World, log: Log, issued: Issued) -> Iterator[str]:
    """One line for every difference between PostgreSQL and the topics."""
    for stream in feed.SHAPES:
        of_stream = {tuple(record[1:]): number for record, number in log.records.items() if record.stream == stream}
        rows, letters = _rows(world, stream), _letters(world, stream)
        by_kind: defaultdict[feed.Kind, dict[tuple[int, int], int]] = defaultdict(dict)
        for place, number in of_stream.items():
            by_kind[feed.kind(number)][place] = number
        yield from _compare(f"{stream} row", rows, {p: feed.row(stream, n) for p, n in by_kind["row"].items()})
        digests = {p: feed.digest(stream, n) for p, n in by_kind["dead letter"].items()}
        yield from _compare(f"{stream} dead letter", letters, digests)
        aborted = {feed.row(stream, number)[0] for name, number in issued.aborted if name == stream}
        yield from _differ(f"{stream}: aborted, but a row", [p for p, row in rows.items() if row[0] in aborted])
        yield from _miscounted(world, stream, log, rows=rows, letters=letters, tombstones=by_kind["tombstone"])


def _miscounted(
    world: World, stream: str, log: Log, rows: Iterable[Any], letters: Iterable[Any], tombstones: Iterable[Any]
) -> Iterator[str]:
    held = [Counter(partition for partition, _ in places) for places in (rows, letters, tombstones)]
    statement = f"select kafka_partition, {_COUNTERS} from ingest.position where stream = %s order by 1"
    counted = {partition: counters for partition, *counters in world.sql(statement, stream)}
    if set(counted) != set(range(PARTITIONS)):
        yield f"{stream}: positions of partitions {sorted(counted)}"
    for partition, counters in counted.items():
        expected = [count[partition] for count in held]
        absent = log.ends[stream, partition] - sum(expected)
        in_topic = [0, log.ends[stream, partition], *expected, absent, 0]
        if counters != in_topic:
            yield f"{stream} {partition}: {_COUNTERS} are {counters}, the topic says {in_topic}"


def _rows(world: World, stream: str) -> dict[tuple[int, int], tuple[Any, ...]]:
    shape = feed.SHAPES[stream]
    statement = f"select kafka_partition, kafka_offset, {shape.name}, {shape.number}, event_time from {stream}"
    return {(partition, offset): tuple(values) for partition, offset, *values in world.sql(statement)}


def _letters(world: World, stream: str) -> dict[tuple[int, int], bytes]:
    statement = "select kafka_partition, kafka_offset, value_sha256 from ingest.dead_letter where stream = %s"
    return {(partition, offset): bytes(digest) for partition, offset, digest in world.sql(statement, stream)}


def _compare(what: str, stored: dict[Any, Any], expected: dict[Any, Any]) -> Iterator[str]:
    yield from _differ(f"{what} missing", expected.keys() - stored.keys())
    yield from _differ(f"{what} too many", stored.keys() - expected.keys())
    other = [place for place in stored.keys() & expected.keys() if stored[place] != expected[place]]
    yield from _differ(f"{what} with other values", [f"{p}: {stored[p]}, not {expected[p]}" for p in sorted(other)])


def _differ(what: str, places: Iterable[Any]) -> list[str]:
    ordered = sorted(places)
    if not ordered:
        return []
    shown = ", ".join(str(tuple(place) if isinstance(place, tuple) else place) for place in ordered[:_SHOWN])
    return [f"{what}: {len(ordered):,}, such as {shown}"]

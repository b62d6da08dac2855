"""What ours is compared with: the plain asyncio design, and the limits that no design on this machine can pass.

    python -m benchmarks.baseline asyncio|undecoded|limit SERVERS TOPIC RECORDS DATABASE_URL TABLE BATCH

Each drains one topic in a process of its own and prints a line of JSON: (monotonic seconds, rows) samples, its CPU and
most resident memory.
"""

import asyncio
import json
import resource
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

COLUMNS = {
    "temperature": ("device_id", "temperature"),
    "price": ("symbol", "price"),
}
Samples = list[tuple[float, int]]
Rows = list[tuple[Any, ...]]


async def by_asyncio(servers: str, topic: str, records: int, url: str, table: str, batch: int) -> Samples:
    """aiokafka, json, asyncpg's executemany, Kafka's offsets committed after the rows: at least once."""
    import asyncpg
    from aiokafka import AIOKafkaConsumer

    text, number = COLUMNS[topic]
    insert = (
        f"INSERT INTO {table} (kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp, {text}, {number},"
        " event_time) VALUES (1, $1, $2, $3, $4, $5, $6)"
    )
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=servers,
        group_id=f"baseline-{uuid.uuid4().hex}",  # never one that has been here before
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    connection = await asyncpg.connect(url)
    await consumer.start()
    samples, done = [(time.monotonic(), 0)], 0
    while done < records:
        polled = await consumer.getmany(timeout_ms=1000, max_records=batch)
        rows = []
        for messages in polled.values():
            for message in messages:
                done += 1
                try:
                    event = json.loads(message.value)
                    event_time = datetime.fromisoformat(event["timestamp"])
                    stamp = datetime.fromtimestamp(message.timestamp / 1000, UTC)
                    rows.append((message.partition, message.offset, stamp, event[text], event[number], event_time))
                except (ValueError, KeyError):
                    continue
        if rows:
            async with connection.transaction():
                await connection.executemany(insert, rows)
            await consumer.commit()
            samples.append((time.monotonic(), done))
    await consumer.stop()
    await connection.close()
    return samples


def by_copy_alone(topic: str, records: int, url: str, table: str, batch: int) -> Samples:
    """Ready-made rows of the same shape by binary COPY, a commit a batch: no Kafka, no decoding, no positions."""
    event_time = datetime(2026, 1, 1, tzinfo=UTC)

    def rows(done: int) -> Rows:
        return [(1, i % 4, i // 4, 10**15, "dev-0042", 21.5, event_time) for i in range(done, done + batch)]

    return _copied(rows, topic, records, url=url, table=table)


def undecoded(servers: str, topic: str, records: int, url: str, table: str, batch: int) -> Samples:
    """The same for records consumed as ours are. Their values are not even read."""
    from confluent_kafka import Consumer, Message, TopicPartition

    from ingest_pipeline.kafka.client import consumer_config
    from ingest_pipeline.settings import StreamSettings

    settings = StreamSettings()
    config = consumer_config({"bootstrap.servers": servers}, "undecoded", settings.batch_bytes)
    consumer = Consumer(config)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
    event_time = datetime(2026, 1, 1, tzinfo=UTC)

    def rows(_: int) -> Rows:
        messages = [message for message in consumer.consume(batch, 1.0) if message.error() is None]
        places = zip(map(Message.partition, messages), map(Message.offset, messages), strict=True)
        return [(1, partition, offset, 10**15, "dev-0042", 21.5, event_time) for partition, offset in places]

    try:
        return _copied(rows, topic, records, url=url, table=table)
    finally:
        consumer.close()


def _copied(rows: Callable[[int], Rows], topic: str, records: int, url: str, table: str) -> Samples:
    """`rows` is given the count of those before."""
    import psycopg

    text, number = COLUMNS[topic]
    columns = f"kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp, {text}, {number}, event_time"
    statement = f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)"
    types = ("int2", "int4", "int8", "int8", "text", "float8", "timestamptz")
    samples, done = [(time.monotonic(), 0)], 0
    with psycopg.connect(url) as connection:
        while done < records:
            batch = rows(done)
            with connection.cursor().copy(statement) as copy:
                copy.set_types(types)
                for row in batch:
                    copy.write_row(row)
            connection.commit()
            done += len(batch)
            samples.append((time.monotonic(), done))
    return samples


def _most_resident_mib() -> float:
    """This program's own: `ru_maxrss` is also that of the process which started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def main(arguments: list[str]) -> None:
    kind, servers, topic, records, url, table, batch = arguments
    if kind == "asyncio":
        samples = asyncio.run(by_asyncio(servers, topic, int(records), url=url, table=table, batch=int(batch)))
    elif kind == "undecoded":
        samples = undecoded(servers, topic, int(records), url=url, table=table, batch=int(batch))
    else:
        samples = by_copy_alone(topic, int(records), url, table=table, batch=int(batch))
    used = resource.getrusage(resource.RUSAGE_SELF)
    result: dict[str, Any] = {
        "samples": samples,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "rss_mib": _most_resident_mib(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])

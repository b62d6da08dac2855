"""The trouble of one stream leaves the latency of the others alone, on real Kafka and PostgreSQL."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from ingest_pipeline.orchestration import tags
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import Bench, failure, wait_for
from ingest_pipeline_tests.orchestration.records import Record, temperatures

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
JOB = "sites"
WELL, TROUBLED = ("attic", "cellar"), ("deleted", "locked", "poisoned")
(TEMPERATURE,) = (stream for stream in STREAMS if stream.name == "temperature")
SITES = [
    replace(TEMPERATURE, name=name, topic=name, table=name, topic_asset="", job=JOB) for name in sorted(WELL + TROUBLED)
]
QUIET_SECONDS, TROUBLE_SECONDS = 4.0, 15.0
SECONDS_BETWEEN_RECORDS = 0.2
SLOWER = 3
"""A loaded machine slows both phases. Waiting for another stream's lock, limit or topic would take far longer."""


@dataclass
class Latencies:
    """Seconds from a record's Kafka timestamp until another session sees its row, of the streams that are well."""

    by_time: list[tuple[float, float]] = field(default_factory=list)

    def between(self, begin: float, end: float) -> list[float]:
        return [latency for seen_at, latency in self.by_time if begin <= seen_at <= end]


def slowest(latencies: list[float]) -> float:
    """The latency that 5 % of the records exceed."""
    return statistics.quantiles(latencies, n=20)[-1]


@contextmanager
def running(act: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)


def send_records(bench: Bench, names: Callable[[], tuple[str, ...]], stop: threading.Event) -> None:
    topics = {stream.name: stream.topic for stream in bench.streams}
    producer = Producer({"bootstrap.servers": bench.bootstrap_servers, "linger.ms": 0})
    (record,) = temperatures(1)
    while not stop.wait(SECONDS_BETWEEN_RECORDS):
        for name in names():
            producer.produce(topics[name], record.value, partition=0)
        producer.poll(0)
    producer.flush(30)


def see_rows(bench: Bench, latencies: Latencies, stop: threading.Event) -> None:
    last = dict.fromkeys(WELL, -1)
    with psycopg.connect(bench.url, autocommit=True) as connection:
        while not stop.wait(0.02):
            for name in WELL:
                statement = f"""SELECT kafka_offset, extract(epoch FROM clock_timestamp() - kafka_timestamp)::float8
                    FROM {name} WHERE kafka_offset > %s ORDER BY 1"""
                for offset, seconds in connection.execute(statement, [last[name]]).fetchall():
                    latencies.by_time.append((time.monotonic(), seconds))
                    last[name] = offset


def test_the_trouble_of_some_streams_leaves_the_latency_of_the_others_alone(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(SITES, partitions=1, RUN_IDLE_SECONDS="60", BATCH_TIMEOUT="0.2", BATCH_SIZE="100")
    streams = {stream.name: stream for stream in bench.streams}
    for stream in bench.streams:
        bench.produce(temperatures(5, partitions=1), stream)
    assert bench.by_hand().success
    latencies, stop = Latencies(), threading.Event()
    names, phases = WELL + TROUBLED, dict[str, tuple[float, float]]()
    admin = AdminClient({"bootstrap.servers": bench.bootstrap_servers})

    def lead() -> None:
        nonlocal names
        try:
            wait_for("rows of all streams", lambda: all(bench.rows(stream) > 5 for stream in bench.streams))
            began = time.monotonic()
            time.sleep(QUIET_SECONDS)
            phases["quiet"] = began, time.monotonic()
            with psycopg.connect(bench.url) as other:
                other.execute("LOCK TABLE locked")
                names = (*WELL, "locked")
                topic = streams["deleted"].topic
                admin.delete_topics([topic])[topic].result(30)
                bench.produce([Record(b"{", partition=0)] * 500, streams["poisoned"])
                began = time.monotonic()
                time.sleep(TROUBLE_SECONDS)
                phases["trouble"] = began, time.monotonic()
            wait_for("rows of the unlocked table", lambda: bench.rows(streams["locked"]) > TROUBLE_SECONDS)
        finally:
            for name in (*WELL, "locked"):
                bench.clients.ledger(streams[name]).pause("the end of the test", "test")

    job = bench.definitions.resolve_job_def(tags.job_name(JOB))
    with (
        running(lambda: send_records(bench, lambda: names, stop), stop),
        running(lambda: see_rows(bench, latencies, stop), stop),
        running(lead, threading.Event()),
    ):
        run_tags = {tags.DRAINS: JOB, tags.SHARD: "0/1"}
        result = job.execute_in_process(instance=bench.instance, tags=run_tags, raise_on_error=False)
    failed = bench.run_tags(result.run_id)[tags.FAILED_STREAMS].split(",")
    assert sorted(failed) == ["deleted", "poisoned"], failure(result)
    quiet, trouble = (latencies.between(*phases[phase]) for phase in ("quiet", "trouble"))
    assert len(trouble) > len(WELL) * TROUBLE_SECONDS / SECONDS_BETWEEN_RECORDS / 2
    assert slowest(trouble) < SLOWER * slowest(quiet)

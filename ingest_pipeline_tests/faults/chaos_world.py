"""The system under a chaos run: its own Kafka, PostgreSQL behind a proxy, and Dagster."""

import time
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
from confluent_kafka import Producer

from ingest_pipeline.local.postgres import EmbeddedPostgres
from ingest_pipeline.local.server import HOST
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.faults import feed, shared_streams
from ingest_pipeline_tests.faults.producers import PARTITIONS, At, Producers
from ingest_pipeline_tests.faults.shared_streams import DOOMED
from ingest_pipeline_tests.faults.supervised import Dagster
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.choose import own_cluster, own_kafka
from ingest_pipeline_tests.servers.kafka_cluster import KafkaCluster
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url
from ingest_pipeline_tests.servers.proxy import TcpProxy

PARALLELISM = 2
USUAL_LATENCY = 0.002
"""Delay in seconds in each direction, so that a fault can hit the middle of a transaction."""
SETTINGS = {"PARALLELISM": str(PARALLELISM), "BATCH_SIZE": "25", "RUN_IDLE_SECONDS": "10"}
SHARED_STREAMS = "ingest_pipeline_tests.faults.shared_streams:STREAMS"
_SESSIONS = """select coalesce(nullif(application_name, ''), backend_type),
    concat_ws(', ', state, wait_event, format('for %s s', round(extract(epoch from now() - state_change))))
    from pg_stat_activity
    where (application_name like 'ingest %' or state like 'idle in transaction%') and pid <> pg_backend_pid()"""
_LOCKS = "select pid, classid, objid from pg_locks where locktype = 'advisory'"


class Doomed:
    """Writes to the stream whose topic a fault deletes. Its rows outlive the topic."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap_servers, "log_level": 0})
        self.sent = 0

    def send(self, count: int) -> None:
        for number in range(self.sent, self.sent + count):
            value = feed.SHAPES["temperature"].json(number, 1, f"{DOOMED}-{number}")
            self._producer.produce(DOOMED, value, partition=number % PARTITIONS)
        assert self._producer.flush(120) == 0
        self.sent += count


class World:
    """Servers, producers and Dagster, running within the block.

    With a `job`, this job drains `streams` streams and the stream `doomed`. With several brokers, the product reaches
    each broker through a proxy, see `broker_proxies`. The producers and the oracle connect directly.
    """

    def __init__(self, folder: Path, seed: int, brokers: int = 1, streams: int = 2, job: str = "") -> None:
        self.folder, self._seed, self._brokers = folder, seed, brokers
        self._settings, self.streams = dict(SETTINGS), list(STREAMS)
        self.doomed: Doomed | None = None
        if job:
            self._settings |= {"INGEST_STREAMS": SHARED_STREAMS, "CHAOS_STREAMS": str(streams), "CHAOS_JOB": job}
            self.streams = shared_streams.streams(streams, job)
            feed.add_shapes(streams)
        self.kafka: RealKafka
        self.broker_proxies: dict[int, TcpProxy] = {}
        self._cleanup = ExitStack()
        self._connection: psycopg.Connection[Any] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()
        if self._connection is not None:
            self._connection.close()

    def _start(self) -> None:
        enter = self._cleanup.enter_context
        bootstrap_servers = self._start_kafka()
        for stream in self.streams:
            self.kafka.create_topic(stream.topic, PARTITIONS)
        self.postgres = enter(EmbeddedPostgres(self.folder / "postgres"))
        self.url = self.postgres.url
        port = urlsplit(self.url).port
        assert port is not None
        self.proxy = enter(TcpProxy(port))
        self.usual_network()
        writer_url = pipeline_url(self.url, self.streams)
        for shape in feed.SHAPES.values():
            self.sql(f"alter table {shape.stream} add constraint plausible check ({shape.check})")
        self.environ = environ = {
            **self._settings,
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "DATABASE_URL": writer_url.replace(f":{port}/", f":{self.proxy.port}/"),
        }
        self.dagster = enter(Dagster(self.folder, environ))
        self.producers = Producers(self.kafka.bootstrap_servers, self._seed)
        if len(self.streams) > len(feed.SHAPES):
            self.doomed = Doomed(self.kafka.bootstrap_servers)

    def _start_kafka(self) -> str:
        """Start Kafka and return the product's bootstrap servers."""
        enter = self._cleanup.enter_context
        if self._brokers == 1:
            self.kafka = enter(own_kafka(self.folder / "kafka"))
            return self.kafka.bootstrap_servers
        self.kafka = cluster = enter(own_cluster(self.folder / "kafka", self._brokers))
        for broker in cluster.outside:
            proxy = enter(TcpProxy(cluster.outside_port(broker)))
            cluster.outside[broker] = f"{HOST}:{proxy.port}"
            self.broker_proxies[broker] = proxy
        cluster.start()
        return ",".join(cluster.outside.values())

    @property
    def cluster(self) -> KafkaCluster:
        """The Kafka cluster of a world with several brokers."""
        assert isinstance(self.kafka, KafkaCluster)
        return self.kafka

    def usual_network(self) -> None:
        self.proxy.latency(USUAL_LATENCY)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Query PostgreSQL past the proxy, and wait for a starting server. Call this function from the main thread."""
        deadline = time.monotonic() + 30
        while True:
            try:
                if self._connection is None or self._connection.broken:
                    self._connection = psycopg.connect(self.url, autocommit=True, application_name="chaos")
                cursor = self._connection.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                if time.monotonic() > deadline or (self._connection and not self._connection.broken):
                    raise
                time.sleep(0.1)

    def missing(self, expected: Collection[At]) -> list[At]:
        """The records among these that are no rows yet."""
        left = []
        for stream in {record.stream for record in expected}:
            of_stream = [record for record in expected if record.stream == stream]
            statement = f"""select kafka_partition, kafka_offset from {stream}
                where (kafka_partition, kafka_offset) in (select * from unnest(%s::int[], %s::bigint[]))"""
            stored = self.sql(
                statement, [record.partition for record in of_stream], [record.offset for record in of_stream]
            )
            left += [record for record in of_stream if (record.partition, record.offset) not in stored]
        return left

    def torn(self) -> list[str]:
        """Positions whose counters differ from the tables, read in one snapshot."""
        wrong = []
        for stream in feed.SHAPES:
            statement = f"""select kafka_partition, "rows", dead_letters,
                (select count(*) from {stream} t where t.kafka_partition = p.kafka_partition),
                (select coalesce(max(kafka_offset), -1) from {stream} t where t.kafka_partition = p.kafka_partition),
                (select count(*) from ingest.dead_letter d
                 where d.stream = p.stream and d.kafka_partition = p.kafka_partition), next_offset
                from ingest.position p where stream = '{stream}'"""
            for partition, rows, letters, stored, highest, written, next_offset in self.sql(statement):
                if (rows, letters) != (stored, written) or highest >= next_offset:
                    wrong.append(
                        f"{stream} {partition}: position {next_offset} counts {rows} rows and {letters} dead letters,"
                        f" the tables hold {stored} (up to offset {highest}) and {written}"
                    )
        return wrong

    def left_behind(self) -> list[str]:
        """The current numbers of run sessions, idle transactions and advisory locks."""
        sessions = [f"session {name}: {state}" for name, state in self.sql(_SESSIONS)]
        locks = [f"advisory lock ({high}, {low}) of backend {pid}" for pid, high, low in self.sql(_LOCKS)]
        return sessions + locks

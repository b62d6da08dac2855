"""A job's topics, and databases in which a run of the job dies and another run goes on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.build import definitions_with
from ingest_pipeline.settings import load_settings
from ingest_pipeline_tests.faults import kill_points
from ingest_pipeline_tests.orchestration import killed_run
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.records import Record, produce
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.choose import RealPostgres
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url

BATCH, BATCHES = 50, 4
NAME = "name %03d " + "x" * 2000  # half a batch of them is more than psycopg keeps back
FIELDS = {"temperature": "device_id", "price": "symbol"}
"""Stream → its field for a name. The stream's own name is its field for a number."""
SHARED_JOB = "sites"
CONTENTS = {
    "dead letters": """select stream, topic, kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp_ms, key,
        value, value_bytes, value_sha256, truncated, headers, stage, reason, sqlstate, status, attempts, resolved_at
        from ingest.dead_letter order by 1, 3, 4, 5""",
    "positions": """select stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id, first_offset,
        next_offset, leader_epoch, "rows", dead_letters, skipped, absent, lost from ingest.position order by 1, 3""",
    "gaps": "select * from ingest.gap",
}
"""Everything that a run leaves, without run ids, times and the order of writes."""


class Case(NamedTuple):
    """The ledger's contents after a death in batch, or at group commit, `nth`."""

    point: str
    nth: int
    batches: int
    or_more: bool = False


def records(stream: Stream) -> list[Record]:
    """Valid records, and in every batch some of each other kind."""
    records = []
    for number in range(BATCH * BATCHES):
        figure = -999.0 if number % 17 == 5 else number / 8
        event = {
            FIELDS[stream.name]: NAME % number,
            stream.name: figure,
            "timestamp": "2026-01-01T00:00:00.123456Z",
        }
        value: bytes | None = json.dumps(event).encode()
        if number % 17 == 9:
            value = b'{"broken": %d' % number
        elif number % 17 == 13:
            value = None
        records.append(Record(value, number % 2, b"key %d" % number, (("number", b"%d" % number), ("empty", None))))
    return records


class World:
    """The topics of a job's streams, filled once, and the result of an undisturbed run."""

    def __init__(self, kafka: RealKafka, postgres: RealPostgres, streams: Sequence[Stream], folder: Path) -> None:
        self.kafka, self.postgres, self.streams, self.folder = kafka, postgres, streams, folder
        self.job = streams[0].job
        self.instance = dg.DagsterInstance.local_temp(str(folder))
        self._unharmed: dict[bool, dict[str, list[Any]]] = {}

    @contextmanager
    def place(self, refusing: bool) -> Iterator[Place]:
        """A new database with tables, and a new consumer group."""
        with self.postgres.new_database() as name:
            yield Place(self, self.postgres.url_of(name), refusing)

    def unharmed(self, refusing: bool) -> dict[str, list[Any]]:
        if refusing not in self._unharmed:
            with self.place(refusing) as place:
                place.drain()
                self._unharmed[refusing] = place.contents()
        return self._unharmed[refusing]


class Place:
    """A database and a consumer group.

    Args:
        refusing: the table gets a constraint that some records violate.
    """

    def __init__(self, world: World, url: str, refusing: bool) -> None:
        self.world, self.url = world, url
        self.environ = {
            "KAFKA_BOOTSTRAP_SERVERS": world.kafka.bootstrap_servers,
            "KAFKA_GROUP_PREFIX": f"kill-point-{uuid.uuid4().hex[:8]}-",
            "DATABASE_URL": pipeline_url(url, world.streams),
            "BATCH_SIZE": str(BATCH),
            "RECORDS_PER_COMMIT": "1",  # so that there is a later batch to die in
            "BATCH_TIMEOUT": "60",  # a batch is cut by its size alone
        }
        if refusing:
            for stream in world.streams:
                query(url, f"alter table {stream.table} add constraint not_cold check ({stream.name} > -900)")

    @contextmanager
    def _clients(self, environ: dict[str, str]) -> Iterator[Clients]:
        clients = Clients(
            load_settings({stream.name: stream.job for stream in self.world.streams}, {**self.environ, **environ})
        )
        yield clients
        clients.close()

    def drain(self) -> None:
        """A run to the end of the topics, in this process."""
        environ = {**self.environ, "BATCH_TIMEOUT": "0.1", "RUN_IDLE_SECONDS": "0"}
        streams, job = self.world.streams, self.world.job
        with self._clients(environ) as clients:
            definitions = definitions_with(clients, streams)
            result = definitions.resolve_job_def(tags.job_name(job)).execute_in_process(
                instance=self.world.instance, tags={**tags.drain_tags(job, streams), tags.SHARD: "0/1"}
            )
        run = self.world.instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.tags[tags.ENDED] == "caught-up"

    def die(self, case: Case, marker: Path) -> dict[str, int]:
        """A run that dies. Returns its last words after PostgreSQL has ended its session."""
        environ = {**self.environ, "RUN_IDLE_SECONDS": "60"}
        topics = {stream.name: stream.topic for stream in self.world.streams}
        drain = partial(killed_run.drain, topics, environ, self.world.folder, self.world.job)
        process = kill_points.start(case.point, case.nth, marker, url=self.url, drain=drain)
        process.join(60)
        ended = process.exitcode
        process.kill()
        process.join()
        process.close()
        assert ended == kill_points.KILLED, (self.world.folder / "run.log").read_text()[-2000:]
        sessions = (
            "select 1 from pg_stat_activity where application_name like 'ingest %' and datname = current_database()"
        )
        wait_for("the end of its sessions", lambda: not query(self.url, sessions))
        words: dict[str, int] = json.loads(marker.read_text())
        return words

    def contents(self) -> dict[str, list[Any]]:
        """Each ledger table and each event table → its rows."""
        event_tables = {
            stream.name: f"""select kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp,
                {FIELDS[stream.name]}, {stream.name}, event_time from {stream.table} order by 1, 2, 3"""
            for stream in self.world.streams
        }
        return {name: query(self.url, statement) for name, statement in (CONTENTS | event_tables).items()}

    def accounted(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Partition → (offsets that the ledger has passed, records found in the tables or counted as skipped)."""
        return {
            (stream.name, partition): (moved, stored)
            for stream in self.world.streams
            for partition, moved, stored in query(
                self.url,
                f"""select p.kafka_partition, next_offset - first_offset, skipped
                    + (select count(*) from {stream.table} t where t.kafka_partition = p.kafka_partition)
                    + (select count(*) from ingest.dead_letter d
                        where d.stream = p.stream and d.kafka_partition = p.kafka_partition)
                from ingest.position p where p.stream = %s""",
                stream.name,
            )
        }

    def group_offsets(self) -> dict[tuple[str, int], int]:
        """The committed group offsets. Empty without a commit."""
        with self._clients({}) as clients:
            return {
                (stream.name, partition): offset.next_offset
                for stream in self.world.streams
                for partition, offset in clients.topic(stream).group_offsets(clients.group_id(stream)).items()
            }


@contextmanager
def world_of(
    streams: Sequence[Stream], kafka: RealKafka, postgres: RealPostgres, folders: pytest.TempPathFactory
) -> Iterator[World]:
    streams = [replace(stream, topic=f"kill-points-{uuid.uuid4().hex[:8]}") for stream in streams]
    for stream in streams:
        kafka.create_topic(stream.topic, 2)
        produce(kafka.bootstrap_servers, stream.topic, records(stream))
    world = World(kafka, postgres, streams, folders.mktemp("dagster"))
    yield world
    world.instance.dispose()
    for stream in streams:
        kafka.delete_topic(stream.topic)

"""A run killed at any step, and a second run after it, leave the same result as one undisturbed run."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.build import definitions_with
from ingest_pipeline.settings import load_settings
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.faults import kill_points
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.records import Record, produce
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.choose import RealPostgres

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

BATCH, BATCHES = 50, 4
DEVICE = "device %03d " + "x" * 2000  # half a batch of them is more than psycopg keeps back
NOT_COLD = "alter table temperature add constraint not_cold check (temperature > -900)"
CONTENTS = {
    "rows": """select kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp, device_id, temperature,
        event_time from temperature order by 1, 2, 3""",
    "dead letters": """select stream, topic, kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp_ms, key,
        value, value_bytes, value_sha256, truncated, headers, stage, reason, sqlstate, status, attempts, resolved_at
        from ingest.dead_letter order by 3, 4, 5""",
    "positions": """select stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id, first_offset,
        next_offset, leader_epoch, "rows", dead_letters, skipped, absent, lost from ingest.position order by 3""",
    "gaps": "select * from ingest.gap",
}
"""Everything that a run leaves, without run ids, times and the order of writes."""


class Case(NamedTuple):
    """The ledger's contents after a death in batch, or at group commit, `nth`."""

    point: str
    nth: int
    batches: int
    or_more: bool = False


def cases() -> Iterator[Case]:
    points = list(kill_points.POINTS)
    durable = points.index("commit_sent")
    for place, point in enumerate(points):
        if "group" in point:  # at most once a second: by the second one, any number of batches may be through
            yield from (Case(point, nth, nth, or_more=(point, nth) != ("before_group_commit", 1)) for nth in (1, 2))
        else:
            yield from (Case(point, nth, nth if place >= durable else nth - 1) for nth in (1, 3))


def records() -> list[Record]:
    """Valid records, and in every batch some of each other kind."""
    records = []
    for number in range(BATCH * BATCHES):
        degrees = -999.0 if number % 17 == 5 else number / 8
        event = {"device_id": DEVICE % number, "temperature": degrees, "timestamp": "2026-01-01T00:00:00.123456Z"}
        value: bytes | None = json.dumps(event).encode()
        if number % 17 == 9:
            value = b'{"broken": %d' % number
        elif number % 17 == 13:
            value = None
        records.append(Record(value, number % 2, b"key %d" % number, (("number", b"%d" % number), ("empty", None))))
    return records


class World:
    """A topic, filled once, and the result of an undisturbed run."""

    def __init__(self, kafka: RealKafka, postgres: RealPostgres, topic: str, folder: Path) -> None:
        self.kafka, self.postgres, self.topic, self.folder = kafka, postgres, topic, folder
        self.stream: Stream = replace(STREAMS[0], topic=topic)
        self.instance = dg.DagsterInstance.local_temp(str(folder))
        self._unharmed: dict[bool, dict[str, list[Any]]] = {}

    @contextmanager
    def place(self, refusing: bool) -> Iterator[Place]:
        """A new database with tables, and a new consumer group."""
        name = f"kill_point_{uuid.uuid4().hex[:12]}"
        query(self.postgres.url, f"create database {name}")
        try:
            yield Place(self, self.postgres.url_of(name), refusing)
        finally:
            query(self.postgres.url, f"drop database {name} with (force)")

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
            "DATABASE_URL": url,
            "BATCH_SIZE": str(BATCH),
            "RECORDS_PER_COMMIT": "1",  # so that there is a later batch to die in
            "BATCH_TIMEOUT": "60",  # a batch is cut by its size alone
        }
        with self._clients({}) as clients:
            clients.ledger(world.stream).prepare()
        if refusing:
            query(url, NOT_COLD)

    @contextmanager
    def _clients(self, environ: dict[str, str]) -> Iterator[Clients]:
        clients = Clients(load_settings([self.world.stream.name], {**self.environ, **environ}))
        yield clients
        clients.close()

    def drain(self) -> None:
        """A run to the end of the topic, in this process."""
        environ = {**self.environ, "BATCH_TIMEOUT": "0.1", "RUN_IDLE_SECONDS": "0"}
        stream = self.world.stream
        with self._clients(environ) as clients:
            definitions = definitions_with(clients, [stream])
            result = definitions.resolve_job_def(tags.job_name(stream.job)).execute_in_process(
                instance=self.world.instance, tags={tags.STREAM: stream.name, tags.SHARD: "0/1"}
            )
        run = self.world.instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.tags[tags.ENDED] == "caught-up"

    def die(self, case: Case, marker: Path) -> dict[str, int]:
        """A run that dies. Returns its last words after PostgreSQL has ended its session."""
        environ = {**self.environ, "RUN_IDLE_SECONDS": "60"}
        process = kill_points.start(
            case.point, case.nth, marker, topic=self.world.topic, environ=environ, folder=self.world.folder
        )
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
        return {name: query(self.url, statement) for name, statement in CONTENTS.items()}

    def accounted(self) -> dict[int, tuple[int, int]]:
        """Partition → (offsets that the ledger has passed, records found in the tables or counted as skipped)."""
        return {
            partition: (moved, stored)
            for partition, moved, stored in query(
                self.url,
                """select p.kafka_partition, next_offset - first_offset, skipped
                    + (select count(*) from temperature t where t.kafka_partition = p.kafka_partition)
                    + (select count(*) from ingest.dead_letter d where d.kafka_partition = p.kafka_partition)
                from ingest.position p""",
            )
        }

    def group_offsets(self) -> dict[int, int]:
        """The committed group offsets. Empty without a commit."""
        with self._clients({}) as clients:
            offsets = clients.topic(self.world.stream).group_offsets(clients.group_id(self.world.stream))
            return {partition: offset.next_offset for partition, offset in offsets.items()}


@pytest.fixture(scope="module")
def world(
    kafka_server: RealKafka, postgres_server: RealPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    topic, folder = f"kill-points-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("dagster")
    kafka_server.create_topic(topic, 2)
    produce(kafka_server.bootstrap_servers, topic, records())
    world = World(kafka_server, postgres_server, topic, folder)
    yield world
    world.instance.dispose()
    kafka_server.delete_topic(topic)


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: f"{case.point}-{case.nth}")
def test_killed_is_as_good_as_not_killed(world: World, case: Case, tmp_path: Path) -> None:
    refusing = case.point != "mid_copy"  # there the server would end the COPY by itself
    with world.place(refusing) as place:
        words = place.die(case, tmp_path / "marker")
        check_last_words(case, words)
        accounted = place.accounted()
        assert all(moved == stored for moved, stored in accounted.values()), accounted
        behind = sum(moved for moved, _ in accounted.values())
        assert behind == BATCH * case.batches or (case.or_more and behind in range(BATCH * case.batches, 201, BATCH))
        group = place.group_offsets()
        assert all(offset <= accounted[partition][0] for partition, offset in group.items()), group
        if case.nth == 1:
            assert bool(group) == (case.point == "after_group_commit")
        place.drain()
        assert place.contents() == world.unharmed(refusing)


def check_last_words(case: Case, words: dict[str, int]) -> None:
    """The run died in the chosen batch at the chosen step."""
    if "group" in case.point:
        assert words["written"] >= case.nth
        return
    reading = case.point in ("consumed", "decoded")
    assert words["begun"] == case.nth - reading
    assert words["written"] == case.nth - (case.point != "committed")
    if case.point == "mid_copy":
        assert len(DEVICE) < words["read"] < BATCH * len(DEVICE)


def test_the_unharmed_run_has_everything(world: World) -> None:
    """The reference result is not empty."""

    def count(refusing: bool, what: str) -> int:
        return len(world.unharmed(refusing)[what])

    kinds = [number % 17 for number in range(BATCH * BATCHES)]
    broken, skipped, cold = kinds.count(9), kinds.count(13), kinds.count(5)
    assert count(False, "rows") == BATCH * BATCHES - broken - skipped
    assert count(False, "dead letters") == broken
    assert count(True, "rows") == BATCH * BATCHES - broken - skipped - cold
    assert count(True, "dead letters") == broken + cold
    assert count(True, "positions") == 2

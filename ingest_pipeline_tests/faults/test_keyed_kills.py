"""Runs of a keyed stream with deletions are killed at every step. The table has the last record of every key."""

import json
import random
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import dagster as dg
import msgspec
import pytest

from ingest_pipeline import Stream
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.ledger import LetterFilter
from ingest_pipeline.core.record_keys import record_keys
from ingest_pipeline.core.rows import RecordRules
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline_tests.faults import kill_points
from ingest_pipeline_tests.orchestration import killed_run
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.records import Record, produce
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url

BATCH, KEYS, PARTITIONS = 50, 120, 2
RECORDS = 4 * BATCH
"""Produced before every run, for a batch behind the one in which the run dies."""
LONG = "x" * 4000  # half a batch of them is more than psycopg keeps back
REFUSED = 1000
POINTS = [point for point in (*kill_points.POINTS, *kill_points.KEYED_POINTS) if point != "savepoint_open"]
KILLS = [(point, 1) for point in POINTS] + [(point, 3) for point in POINTS if "group" not in point]


class Level(msgspec.Struct):
    number: int
    level: int
    text: str


def keyed(topic: str) -> Stream:
    return Stream("level", Level, topic=topic, key=("number",), deletes=True)


def records(chosen: random.Random) -> list[Record]:
    """Rows, deletions, refused rows and broken records, with keys in two notations."""
    made = []
    for _ in range(RECORDS):
        number, kind = chosen.randrange(KEYS), chosen.choice(["row"] * 7 + ["deletion"] * 2 + ["refused", "broken"])
        level = REFUSED + chosen.randrange(9) if kind == "refused" else chosen.randrange(REFUSED)
        value: bytes | None = json.dumps({"number": number, "level": level, "text": LONG}).encode()
        if kind in ("deletion", "broken"):
            value = None if kind == "deletion" else b"{"
        key = chosen.choice([b'{"number": %d}', b"%d"]) % number
        made.append(Record(value, number % PARTITIONS, key))
    return made


def last_of_each_key(log: list[Record], limit: int) -> list[tuple[int, int, int, int]]:
    """(number, level, partition, offset) of the records that decide. Refused are levels from `limit` on."""
    offsets, rows = [0] * PARTITIONS, dict[int, tuple[int, int, int, int]]()
    for record in log:
        offset, offsets[record.partition] = offsets[record.partition], offsets[record.partition] + 1
        key = json.loads(record.key or b"")
        number = key["number"] if isinstance(key, dict) else key
        if record.value is None:
            rows.pop(number, None)
        elif record.value != b"{" and (level := json.loads(record.value)["level"]) < limit:
            rows[number] = (number, level, record.partition, offset)
    return sorted(rows.values())


@pytest.fixture
def topic(kafka_server: RealKafka) -> Iterator[str]:
    name = f"keyed-kills-{uuid.uuid4().hex[:8]}"
    kafka_server.create_topic(name, PARTITIONS)
    yield name
    kafka_server.delete_topic(name)


@pytest.mark.kafka
@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_after_kills_at_every_step_the_table_has_the_last_record_of_every_key(
    kafka_server: RealKafka, topic: str, database_url: str, tmp_path: Path, method: str
) -> None:
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
        "KAFKA_GROUP_PREFIX": f"{topic}-",
        "DATABASE_URL": pipeline_url(database_url, [keyed(topic)]),
        "BATCH_SIZE": str(BATCH),
        "RECORDS_PER_COMMIT": "1",  # so that there is a later batch to die in
        "WRITE_METHOD": method,
        "DEAD_LETTER_LIMIT": "off",
    }
    dying = {**environ, "BATCH_TIMEOUT": "60", "RUN_IDLE_SECONDS": "60"}
    draining = {**environ, "BATCH_TIMEOUT": "0.1", "RUN_IDLE_SECONDS": "0", "RECORDS_PER_COMMIT": "1000"}
    dg.DagsterInstance.local_temp(str(tmp_path)).dispose()
    stream, database = keyed(topic), Database(sqlalchemy_url(database_url))
    query(database_url, f"alter table level add constraint low check (level < {REFUSED})")
    chosen, log = random.Random(7), list[Record]()
    for point, nth in KILLS:
        if method == "executemany" and (point == "mid_copy" or nth > 1):
            continue
        log += (new := records(chosen))
        produce(kafka_server.bootstrap_servers, topic, new)
        die(
            point, nth, partial(killed_run.drain_stream, partial(keyed, topic), dying, tmp_path), database_url, tmp_path
        )
    drain = killed_run.FORKS.Process(target=killed_run.drain_stream, args=(partial(keyed, topic), draining, tmp_path))
    drain.start()
    drain.join(120)
    assert drain.exitcode == 0, (tmp_path / "run.log").read_text()[-2000:]
    table = "select number, level, kafka_partition, kafka_offset from level order by 1"
    assert query(database_url, table) == last_of_each_key(log, REFUSED)
    counters = 'select sum(next_offset)::int, sum("rows" + dead_letters + skipped)::int from ingest.position'
    assert query(database_url, counters) == [(len(log), len(log))]
    broken = sum(record.value == b"{" for record in log)
    letters = "select count(*)::int, count(distinct (kafka_partition, kafka_offset))::int from ingest.dead_letter"
    ((kept, different),) = query(database_url, f"{letters} where value = '{{'")
    assert kept == different == broken
    query(database_url, "alter table level drop constraint low")
    rules = RecordRules(record_keys=record_keys(stream))
    DeadLetters(database, stream).redrive(LetterFilter(), JsonDecoder(stream).decode, rules)
    assert query(database_url, table) == last_of_each_key(log, REFUSED * 2)
    database.dispose()


def die(point: str, nth: int, drain: Callable[[], None], url: str, folder: Path) -> None:
    """A run that dies at this point of its nth batch. On return PostgreSQL has ended its session."""
    marker = folder / f"{point}-{nth}"
    process = kill_points.start(point, nth, marker, url=url, drain=drain)
    process.join(60)
    ended = process.exitcode
    process.kill()
    process.join()
    assert (ended, marker.exists()) == (kill_points.KILLED, True), (folder / "run.log").read_text()[-2000:]
    sessions = "select 1 from pg_stat_activity where application_name like 'ingest %' and datname = current_database()"
    wait_for("the end of its sessions", lambda: not query(url, sessions))

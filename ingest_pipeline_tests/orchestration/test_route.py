"""One topic into several tables, and several topics into one table, in whole runs on real Kafka and PostgreSQL."""

import json
import random
import signal
import time
import uuid
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pytest

import ingest_pipeline
from ingest_pipeline import Route, Stream
from ingest_pipeline.core.ledger import LetterFilter
from ingest_pipeline.core.roles import Role
from ingest_pipeline.operations.replays import ReplayRequest, ranges, run_replay
from ingest_pipeline.orchestration.checks import WITHIN_LIMIT
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.table_reads import newest_timestamps, rows_per_second
from ingest_pipeline_tests.orchestration import killed_run
from ingest_pipeline_tests.orchestration.bench import Bench, query, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import Record, produce
from ingest_pipeline_tests.orchestration.test_metrics import scraped
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url

pytestmark = pytest.mark.kafka
ROUNDS, RECORDS = 8, 6000


class Event(msgspec.Struct):
    kind: str
    number: int


class Click(Event):
    url: str


ROUTED = Stream("event", Event, route=Route("kind", {"click": ("clicks", Click), "view": "views"}))
SHARED = [Stream(f"site_{site}", Event, table="sites", topic_column="kafka_topic") for site in ("north", "south")]
KINDS = ("click", "view", "click", "view", "scroll")


def event(number: int) -> Record:
    """A click, a view, or in every fifth record an event without a table."""
    value = {"kind": KINDS[number % 5], "number": number, "url": "u"}
    return Record(json.dumps(value).encode(), number % 2)


def redriven(bench: Bench, stream: Stream) -> Any:
    context = bench.context
    letters = DeadLetters(context.clients.database(), stream)
    return letters.redrive(LetterFilter(), context.clients.decoder(stream).decode, context.clients.record_rules(stream))


@pytest.mark.role(Role.OPERATOR)
@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_a_topic_in_two_tables(make_bench: Callable[..., Bench], method: str) -> None:
    events = make_bench([ROUTED], partitions=2, WRITE_METHOD=method, BATCH_SIZE="7", DEAD_LETTER_LIMIT="off")
    events.produce(map(event, range(50)))
    events.drain()
    assert events.query("SELECT count(*), count(url) FROM clicks") == [(20, 20)]
    assert events.query("SELECT count(*) FROM views") == [20]
    counts = "SELECT sum(rows), sum(dead_letters), sum(skipped), sum(absent) FROM ingest.position"
    assert events.query(counts) == [(40, 10, 0, 0)]
    assert [name for name, result in events.check_results().items() if not result.passed] == [WITHIN_LIMIT]
    database = events.context.clients.database()
    assert all(rate > 0 for rate in rows_per_second(database, events.stream).values())
    assert newest_timestamps(database, events.stream).keys() == {0, 1}
    checked = ingest(events, "check")
    assert all(f"OK   table {table} of event: " in checked for table in ("clicks", "views"))
    newest = json.loads(ingest(events, "tail", "event", "-n", "2", "--json"))
    assert [(row["table"], "url" in row) for row in newest] == [("clicks", True)] * 2 + [("views", False)] * 2
    samples = scraped(events)
    assert [samples["ingest_rows_total", "event", partition] for partition in "01"] == [20, 20]
    assert [samples["ingest_open_dead_letters", "event", partition, "decode", ""] for partition in "01"] == [5, 5]
    events.query("DELETE FROM clicks WHERE number = 10")
    events.query("DELETE FROM views WHERE number = 11")
    chosen = ranges(ReplayRequest(0, 0, 100), events.context) + ranges(ReplayRequest(1, 0, 100), events.context)
    replayed = run_replay(chosen, events.context)
    assert (replayed.stored, replayed.present, replayed.dead) == (2, 38, 10)
    wider = Route("kind", {**ROUTED.route.tables, "scroll": "views"})  # type: ignore[union-attr]
    done = redriven(events, Stream("event", Event, topic=events.stream.topic, route=wider))
    assert (done.stored, done.refused) == (10, 0)
    assert events.query("SELECT number FROM clicks UNION ALL SELECT number FROM views ORDER BY 1") == list(range(50))


@pytest.mark.role(Role.OPERATOR)
def test_two_topics_in_one_table(make_bench: Callable[..., Bench]) -> None:
    sites = make_bench(SHARED, partitions=1, BATCH_SIZE="7")
    for stream, first in zip(sites.streams, (0, 100), strict=True):
        broken = Record(b'{"kind": "view", "number": "x"}', 0)
        sites.produce([*(event(first + n)._replace(partition=0) for n in range(20)), broken], stream)
    assert sites.by_hand().success
    rows = f"SELECT kafka_topic, min(number), count(*) FROM {SHARED[0].table} GROUP BY 1 ORDER BY 2"
    north, south = (stream.topic for stream in sites.streams)
    assert sites.query(rows) == [(north, 0, 20), (south, 100, 20)]
    assert sites.query("SELECT stream, rows, dead_letters, accounted FROM ingest.accounting ORDER BY 1") == [
        ("site_north", 20, 1, True),
        ("site_south", 20, 1, True),
    ]
    assert len(set(sites.query("SELECT kafka_incarnation FROM ingest.position"))) == 2
    sites.query("UPDATE ingest.position SET kafka_incarnation = 1")  # as of streams that had tables of their own
    sites.query("UPDATE sites SET kafka_incarnation = 1")
    sites.query("UPDATE ingest.dead_letter SET kafka_incarnation = 1")
    sites.query("DELETE FROM sites WHERE number IN (3, 103)")
    for context in sites.contexts:
        replayed = run_replay(ranges(ReplayRequest(0, 0, 100), context), context)
        assert (replayed.stored, replayed.present, replayed.dead) == (1, 19, 1)
    for stream in sites.streams:
        sites.query("UPDATE ingest.dead_letter SET kafka_offset = 19, value = %s", event(7).value)
        assert redriven(sites, stream).present == 1
    assert sites.query(rows) == [(north, 0, 20), (south, 100, 20)]


def routed(topic: str) -> Stream:
    return Stream("event", Event, topic=topic, route=ROUTED.route)


def start(topic: str, environ: dict[str, str], folder: Path) -> BaseProcess:
    process = killed_run.FORKS.Process(target=killed_run.drain_stream, args=(partial(routed, topic), environ, folder))
    process.start()
    return process


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_in_mid_drain_store_every_record_in_its_table_once(
    kafka_server: RealKafka, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(ingest_pipeline.__file__).parents[1]))
    topic, moments = f"event-{uuid.uuid4().hex[:8]}", random.Random(21)
    kafka_server.create_topic(topic, 2)
    dg.DagsterInstance.local_temp(str(tmp_path)).dispose()
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
        "KAFKA_GROUP_PREFIX": f"{topic}-",
        "DATABASE_URL": pipeline_url(database_url, [routed(topic)]),
        "BATCH_SIZE": "100",
        "RECORDS_PER_COMMIT": "200",
        "RUN_IDLE_SECONDS": "3600",
        "DEAD_LETTER_LIMIT": "off",
    }

    def position() -> int:
        return int(query(database_url, "SELECT coalesce(sum(next_offset), 0) FROM ingest.position")[0])

    produced, killed_behind = 0, 0
    for _ in range(ROUNDS):
        target = position() + moments.randrange(RECORDS // 2)
        produce(kafka_server.bootstrap_servers, topic, map(event, range(produced, produced + RECORDS)))
        produced += RECORDS
        process = start(topic, environ, tmp_path)
        while True:
            wait_for("progress", lambda: position() > target or not process.is_alive(), every=0.002)  # noqa: B023
            if process.is_alive():
                break
            process = start(topic, environ, tmp_path)  # the killed run's session had not ended
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        killed_behind += position() < produced

    assert killed_behind > ROUNDS // 3
    process = start(topic, environ, tmp_path)

    def drained() -> bool:
        nonlocal process
        if not process.is_alive():
            process = start(topic, environ, tmp_path)
        return position() == produced

    wait_for("the end", drained, seconds=120)
    process.kill()
    process.join()
    for kind, table in (("click", "clicks"), ("view", "views")):
        numbers = [number for number in range(produced) if KINDS[number % 5] == kind]
        assert query(database_url, f"SELECT number FROM {table} ORDER BY 1") == numbers
    letters = "SELECT kafka_partition + 2 * kafka_offset FROM ingest.dead_letter ORDER BY 1"
    assert query(database_url, letters) == [number for number in range(produced) if number % 5 == 4]
    counters = "SELECT sum(rows), sum(dead_letters), sum(skipped), sum(absent) FROM ingest.position"
    assert query(database_url, counters) == [(produced // 5 * 4, produced // 5, 0, 0)]
    kafka_server.delete_topic(topic)

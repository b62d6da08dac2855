"""`ingest status --json`, `/status`, `/metrics` and `/healthz` say the same of every stream and partition."""

import json
import re
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from ingest_pipeline.core.roles import Role
from ingest_pipeline.operations.metrics import application
from ingest_pipeline.settings import load_settings
from ingest_pipeline_tests.orchestration.bench import Bench, ChangedClients
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.conftest import PRICE, TEMPERATURE
from ingest_pipeline_tests.orchestration.posters import database_away
from ingest_pipeline_tests.orchestration.records import prices, temperatures, with_broken
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.role(Role.OPERATOR)]
Make = Callable[..., Bench]
EXIT_CODES = {"healthy": 0, "degraded": 1, "stopped": 2, "unknown": 3}
OWNER = "0ddba11-and-more"
_STATE = re.compile(r'ingest_stream_state\{state="(\w+)",stream="(\w+)"\} 1\.0')
_MOVING = {"rows_per_second", "delay"}
"""Figures that differ between two looks a moment apart."""


@dataclass
class Scene:
    """Two streams of two partitions that have drained, and what happens to the first one."""

    bench: Bench
    kafka: RealKafka
    cleanup: ExitStack

    def drains(self) -> None:
        connection = self.cleanup.enter_context(closing(self.bench.clients.writing_connection(OWNER)))
        self.bench.clients.ledger_session(connection, self.bench.stream).own([0, 1], exact=True)
        self.bench.produce(temperatures(4))

    def is_paused(self) -> None:
        ingest(self.bench, "pause", "temperature", "--reason", "a test")
        self.bench.produce(temperatures(4))

    def is_at_the_limit(self) -> None:
        self.bench.produce(with_broken(temperatures(8), 1))
        assert not self.bench.by_sensor().success

    def loses_its_topic(self) -> None:
        self.kafka.delete_topic(self.bench.stream.topic)

    def loses_kafka(self) -> None:
        """While a run owns the partitions and a dead letter waits."""
        self.refuses_a_record()
        self.drains()
        environ = {**self.bench.environ, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
        clients = ChangedClients(load_settings({stream.name: stream.job for stream in self.bench.streams}, environ))
        self.cleanup.callback(clients.close)
        self.bench = replace(self.bench, environ=environ, clients=clients)

    def loses_postgres(self) -> None:
        self.cleanup.enter_context(database_away(self.bench))

    def counts_slowly(self) -> None:
        """The view takes longer than any question may."""
        for statement in SLOW_VIEW:
            self.bench.query(statement)
        for statement in QUICK_VIEW:
            self.cleanup.callback(self.bench.query, statement)

    def locks_letters(self) -> None:
        """As while a migration rewrites the table."""
        self._lock("dead_letter")

    def locks_positions(self) -> None:
        self._lock("position")

    def _lock(self, table: str) -> None:
        connection = self.cleanup.enter_context(psycopg.connect(self.bench.url))
        connection.execute(f"lock table ingest.{table} in access exclusive mode")

    def refuses_a_record(self) -> None:
        self.bench.produce(with_broken(temperatures(30), 30))
        self.bench.drain()


@dataclass(frozen=True)
class Case:
    """What everybody says.

    Attributes:
        levels: of the two streams.
        words: in the first messages of the first stream, which has no message where these are empty.
        accounted: of the first stream's partitions. They are not shown where it is "".
        after: the exit code of `ingest status` when the trouble is over.
    """

    strike: Callable[[Scene], None]
    levels: tuple[str, str]
    health: int
    lag: int | None
    owner: str | None = None
    words: tuple[str, ...] = ()
    accounted: bool | str | None = True
    after: int | None = None


UNKNOWN = ("unknown", "unknown")
SILENT = ("unknown: the ledger did not answer in time",)
CASES = {
    "caught up": Case(lambda scene: None, ("healthy", "healthy"), 200, 0),
    "draining": Case(Scene.drains, ("healthy", "healthy"), 200, 4, OWNER),
    "a refused record": Case(Scene.refuses_a_record, ("degraded", "healthy"), 200, 0, words=("1 open dead letter",)),
    "paused": Case(Scene.is_paused, ("stopped", "healthy"), 200, 4, words=("paused: a test",)),
    "at the dead-letter limit": Case(
        Scene.is_at_the_limit, ("stopped", "healthy"), 503, 8, words=("4 records in a row were refused",)
    ),
    "topic missing": Case(
        Scene.loses_its_topic, ("stopped", "healthy"), 503, None, words=("the topic of its 2 positions is gone",)
    ),
    "Kafka away": Case(
        Scene.loses_kafka,
        UNKNOWN,
        504,
        None,
        OWNER,
        words=("unknown: asked once for all streams: Kafka at", "1 open dead letter"),
        after=1,
    ),
    "PostgreSQL away": Case(
        Scene.loses_postgres, UNKNOWN, 504, None, words=("the database takes no sessions",), accounted="", after=0
    ),
    "accounting slow": Case(Scene.counts_slowly, UNKNOWN, 504, 0, words=SILENT, accounted=None, after=0),
    "dead letters locked": Case(Scene.locks_letters, UNKNOWN, 504, 0, words=SILENT, accounted=None, after=0),
    "positions locked": Case(Scene.locks_positions, UNKNOWN, 504, None, words=SILENT, accounted="", after=0),
}
COUNTERS = ("next_offset", "rows", "dead_letters", "skipped", "absent", "lost")
SLOW_VIEW = (
    "alter view ingest.accounting rename to fast",
    "create view ingest.accounting as select fast.* from ingest.fast where pg_sleep(30) is not null",
    "grant select on ingest.accounting to public",
)
QUICK_VIEW = ("alter view ingest.fast rename to accounting", "drop view ingest.accounting")
"""The last one comes first."""


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_all_of_them_say_the_same(make_bench: Make, kafka_server: RealKafka, case: Case) -> None:
    bench = make_bench(streams=[TEMPERATURE, PRICE], DEAD_LETTER_MAX_CONSECUTIVE="3")
    bench.produce(temperatures(20))
    bench.produce(prices(20), bench.streams[1])
    assert bench.by_hand().success
    with ExitStack() as cleanup:
        scene = Scene(bench, kafka_server, cleanup)
        case.strike(scene)
        code = max((EXIT_CODES[level] for level in case.levels), key=[0, 1, 3, 2].index)
        shown = json.loads(ingest(scene.bench, "status", "--json", code=code))
        served = json.loads(get(scene.bench, "/status")[1])
        metrics, healthz = get(scene.bench, "/metrics")[1], get(scene.bench, "/healthz")
    assert [still(stream) for stream in served] == [still(stream) for stream in shown]
    states = dict(zip(("temperature", "price"), case.levels, strict=True))
    assert {stream["stream"]: stream["level"] for stream in shown} == states
    assert {stream: state for state, stream in _STATE.findall(metrics)} == states
    first, partitions = shown[0], shown[0]["partitions"]
    assert all(word in message for word, message in zip(case.words, first["messages"], strict=False)) and len(
        first["messages"]
    ) >= len(case.words)
    assert bool(case.words) == bool(first["messages"])
    assert (first["lag"], {row["owner"] for row in partitions} or {None}) == (case.lag, {case.owner})
    assert ({row["accounted"] for row in partitions} or {""}) == {case.accounted}
    ledger = f"select {', '.join(COUNTERS)} from ingest.position where stream = 'temperature' order by kafka_partition"
    assert [tuple(row[name] for name in COUNTERS) for row in partitions] in ([], bench.query(ledger))
    if case.after is not None:
        ingest(bench, "status", code=case.after)
    assert partitions_of(metrics) == {
        (name, stream["stream"], str(row["partition"])): row[attribute]
        for stream in shown
        for row in stream["partitions"]
        for name, attribute in FIGURES.items()
        if row[attribute] is not None
    }
    ill = [stream for stream in shown if stream["level"] in ("stopped", "unknown")]
    lines = [f"{stream['stream']}: {message}\n" for stream in ill for message in stream["messages"]]
    assert healthz == (case.health, "".join(lines) or "ok\n")


FIGURES = {
    "ingest_position_offset": "next_offset",
    "ingest_end_offset": "end",
    "ingest_lag_records": "lag",
    "ingest_rows_total": "rows",
    "ingest_dead_letters_total": "dead_letters",
    "ingest_lost_offsets_total": "lost",
    "ingest_accounted": "accounted",
}


def partitions_of(metrics: str) -> dict[tuple[str, ...], float]:
    """(metric, stream, partition) → value, of FIGURES."""
    found = re.findall(r'^(\w+)\{partition="(\d)",stream="(\w+)"\} (\S+)$', metrics, re.M)
    return {(name, stream, partition): float(value) for name, partition, stream, value in found if name in FIGURES}


def still(stream: dict[str, Any]) -> dict[str, Any]:
    """The stream without the figures that move, but with whether they are known."""
    rows = [
        {name: value is not None if name in _MOVING else value for name, value in row.items()}
        for row in stream["partitions"]
    ]
    return {**stream, "partitions": rows}


def get(bench: Bench, path: str) -> tuple[int, str]:
    """(status, body) of the endpoint."""
    status: list[str] = []
    asked = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    answer = application(bench.contexts)(asked, lambda line, *_: status.append(line))
    return int(status[0].split()[0]), b"".join(answer).decode()

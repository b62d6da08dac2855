"""A ledger without an answer: the stream is neither healthy nor stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from ingest_pipeline.operations.levels import Level, worst
from ingest_pipeline.operations.metrics import application
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import temperatures, with_broken

pytestmark = pytest.mark.slow
Make = Callable[..., Bench]


@contextmanager
def slow_accounting(bench: Bench) -> Iterator[None]:
    """The view takes longer than any question may."""
    bench.query("alter view ingest.accounting rename to fast")
    bench.query("create view ingest.accounting as select fast.* from ingest.fast where pg_sleep(30) is not null")
    bench.query("grant select on ingest.accounting to public")
    yield
    bench.query("drop view ingest.accounting")
    bench.query("alter view ingest.fast rename to accounting")


@contextmanager
def locked_letters(bench: Bench) -> Iterator[None]:
    """As while a migration rewrites the table."""
    with psycopg.connect(bench.url) as connection:
        connection.execute("lock table ingest.dead_letter in access exclusive mode")
        yield


@contextmanager
def locked_positions(bench: Bench) -> Iterator[None]:
    with psycopg.connect(bench.url) as connection:
        connection.execute("lock table ingest.position in access exclusive mode")
        yield


def get(bench: Bench, path: str) -> tuple[str, str]:
    """(status line, body) of `ingest metrics`."""
    status: list[str] = []
    asked = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    answer = application(bench.contexts)(asked, lambda line, *_: status.append(line))
    return status[0], b"".join(answer).decode()


@pytest.mark.kafka
@pytest.mark.parametrize("delay", [slow_accounting, locked_letters])
def test_an_unanswered_question_is_unknown_and_the_rest_is_shown(make_bench: Make, delay: object) -> None:
    bench = make_bench()
    bench.produce(with_broken(temperatures(20), 7))
    bench.drain()
    with delay(bench):  # type: ignore[operator]
        (stream,) = json.loads(ingest(bench, "status", "--json", code=Level.UNKNOWN))
        status, body = get(bench, "/healthz")
        _, metrics = get(bench, "/metrics")
    assert stream["level"] == "unknown"
    assert "unknown: the ledger did not answer in time" in stream["messages"][0]
    assert [partition["accounted"] for partition in stream["partitions"]] == [None, None]
    assert sum(partition["rows"] for partition in stream["partitions"]) == 18
    assert status.startswith("504 ")
    assert "temperature: unknown: the ledger did not answer in time" in body
    assert 'ingest_stream_state{state="unknown",stream="temperature"} 1.0' in metrics
    assert 'ingest_stream_state{state="stopped",stream="temperature"} 0.0' in metrics
    assert "ingest_accounted{" not in metrics
    assert 'ingest_rows_total{partition="0",stream="temperature"}' in metrics
    ingest(bench, "status", code=Level.DEGRADED)


@pytest.mark.kafka
def test_a_ledger_without_an_answer_is_unknown(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(4))
    bench.drain()
    with locked_positions(bench):
        assert "unknown: the ledger did not answer in time" in ingest(bench, "status", code=Level.UNKNOWN)
    ingest(bench, "status", code=Level.HEALTHY)
    away = make_bench(DATABASE_URL="postgresql://x@127.0.0.1:9/x")
    assert "temperature unknown" in ingest(away, "status", code=Level.UNKNOWN)


def test_a_stalled_stream_comes_before_an_unknown_stream() -> None:
    assert worst([]) == Level.HEALTHY
    assert worst([Level.HEALTHY, Level.DEGRADED]) == Level.DEGRADED
    assert worst([Level.DEGRADED, Level.UNKNOWN, Level.HEALTHY]) == Level.UNKNOWN
    assert worst([Level.UNKNOWN, Level.STOPPED]) == Level.STOPPED

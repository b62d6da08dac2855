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

Make = Callable[..., Bench]


@contextmanager
def slow_accounting(here: Bench) -> Iterator[None]:
    """The view takes longer than any question may."""
    here.query("alter view ingest.accounting rename to fast")
    here.query("create view ingest.accounting as select fast.* from ingest.fast where pg_sleep(30) is not null")
    yield
    here.query("drop view ingest.accounting")
    here.query("alter view ingest.fast rename to accounting")


@contextmanager
def locked_letters(here: Bench) -> Iterator[None]:
    """As while a migration rewrites the table."""
    with psycopg.connect(here.url) as connection:
        connection.execute("lock table ingest.dead_letter in access exclusive mode")
        yield


@contextmanager
def locked_positions(here: Bench) -> Iterator[None]:
    with psycopg.connect(here.url) as connection:
        connection.execute("lock table ingest.position in access exclusive mode")
        yield


def get(here: Bench, path: str) -> tuple[str, str]:
    """(status line, body) of `ingest metrics`."""
    status: list[str] = []
    asked = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    answer = application(here.contexts)(asked, lambda line, *_: status.append(line))
    return status[0], b"".join(answer).decode()


@pytest.mark.kafka
@pytest.mark.parametrize("delay", [slow_accounting, locked_letters])
def test_what_the_ledger_did_not_answer_is_unknown_and_the_rest_is_told(bench: Make, delay: object) -> None:
    here = bench()
    here.produce(with_broken(temperatures(20), 7))
    here.drain()
    with delay(here):  # type: ignore[operator]
        (stream,) = json.loads(ingest(here, "status", "--json", code=Level.UNKNOWN))
        status, body = get(here, "/healthz")
        _, metrics = get(here, "/metrics")
    assert stream["level"] == "unknown"
    assert "unknown: the ledger did not answer in time" in stream["messages"][0]
    assert [at["accounted"] for at in stream["partitions"]] == [None, None]
    assert sum(at["rows"] for at in stream["partitions"]) == 18
    assert status.startswith("504 ")
    assert "temperature: unknown: the ledger did not answer in time" in body
    assert 'ingest_stream_state{state="unknown",stream="temperature"} 1.0' in metrics
    assert 'ingest_stream_state{state="stopped",stream="temperature"} 0.0' in metrics
    assert "ingest_accounted{" not in metrics
    assert 'ingest_rows_total{partition="0",stream="temperature"}' in metrics
    ingest(here, "status", code=Level.DEGRADED)


@pytest.mark.kafka
def test_a_ledger_without_an_answer_is_unknown(bench: Make) -> None:
    here = bench()
    here.produce(temperatures(4))
    here.drain()
    with locked_positions(here):
        assert "unknown: the ledger did not answer in time" in ingest(here, "status", code=Level.UNKNOWN)
    ingest(here, "status", code=Level.HEALTHY)
    away = bench(DATABASE_URL="postgresql://x@127.0.0.1:9/x")
    assert "temperature unknown" in ingest(away, "status", code=Level.UNKNOWN)


def test_a_stream_that_stands_still_comes_before_one_that_is_unknown() -> None:
    assert worst([]) == Level.HEALTHY
    assert worst([Level.HEALTHY, Level.DEGRADED]) == Level.DEGRADED
    assert worst([Level.DEGRADED, Level.UNKNOWN, Level.HEALTHY]) == Level.UNKNOWN
    assert worst([Level.UNKNOWN, Level.STOPPED]) == Level.STOPPED

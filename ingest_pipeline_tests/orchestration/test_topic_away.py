"""A topic that is gone, and Kafka away: what is said of a stream that has begun."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from ingest_pipeline.orchestration.checks import NO_LOSS, UP_TO_DATE
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import temperatures, with_broken
from ingest_pipeline_tests.orchestration.test_checks import newest
from ingest_pipeline_tests.orchestration.test_metrics import scraped
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]
COUNTERS = ("next_offset", "rows", "dead_letters", "open_letters", "skipped", "absent", "lost", "accounted")


def status(bench: Bench, code: int) -> dict[str, Any]:
    (stream,) = json.loads(ingest(bench, "status", "--json", code=code))
    return dict(stream)


def of_ledger(stream: dict[str, Any]) -> list[list[Any]]:
    return [[partition[name] for name in COUNTERS] for partition in stream["partitions"]]


def test_a_deleted_topic_is_reported_as_a_loss(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench()
    bench.produce(with_broken(temperatures(8), 4))
    bench.drain()
    assert bench.tick().skip_message == "caught up: lag 0"
    before = status(bench, 1)
    kafka_server.delete_topic(bench.stream.topic)
    wait_for("the deletion to be known", lambda: bench.tick().skip_message != "caught up: lag 0")
    outcome = bench.tick()
    assert outcome.run_requests == []
    assert "the topic of its 2 positions is gone" in outcome.skip_message
    assert "ingest accept-loss temperature" in outcome.skip_message
    assert newest(bench, NO_LOSS) == (False, outcome.skip_message)
    assert bench.check_results()[NO_LOSS].description == outcome.skip_message
    after = status(bench, 2)
    assert (after["level"], after["messages"][0], after["lag"]) == ("stopped", outcome.skip_message, None)
    assert of_ledger(after) == of_ledger(before)
    assert "the topic of its 2 positions is gone" in ingest(bench, "check", code=1)
    kafka_server.create_topic(bench.stream.topic, 2)
    ingest(bench, "accept-loss", "temperature", "--yes")
    bench.drain()
    assert newest(bench, NO_LOSS)[0]


def test_while_kafka_is_away_status_shows_the_ledger(make_bench: Make) -> None:
    there = make_bench()
    there.produce(with_broken(temperatures(8), 4))
    there.drain()
    bench = make_bench(streams=there.streams, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9", DATABASE_URL=there.url)
    with closing(bench.clients.writing_connection("0ddba11-and-more")) as connection:
        owner = bench.clients.ledger_session(connection, bench.stream)
        owner.own([1], exact=True)
        found = status(bench, 3)
        assert (found["level"], found["lag"], found["open_letters"]) == ("unknown", None, 2)
        assert "127.0.0.1:9" in found["messages"][0]
        assert re.fullmatch(
            r"2 open dead letters: 2x .+\. To see them: ingest dead-letters list temperature", found["messages"][1]
        )
        assert [partition["owner"] for partition in found["partitions"]] == [None, "0ddba11-and-more"]
    assert [(partition["end"], partition["lag"], partition["delay"]) for partition in found["partitions"]] == [
        (None, None, None)
    ] * 2
    assert of_ledger(found) == of_ledger(status(there, 1))
    ends = ("ingest_end_offset", "ingest_lag_records", "ingest_delay_seconds")
    told, known = scraped(bench), scraped(there)
    assert told["ingest_open_dead_letters", "temperature", "1", "decode", ""] == 2
    states = {key for key in known if key[0] == "ingest_stream_state"}
    assert told.keys() == {key for key in known if key[0] not in ends}
    assert all(told[key] == known[key] for key in told.keys() - states)
    message = bench.check_results()[UP_TO_DATE].description
    assert message.startswith("unknown: ")

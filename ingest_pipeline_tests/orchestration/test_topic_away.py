"""A topic that is gone, and Kafka away: what is said of a stream that has begun."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from ingest_pipeline.orchestration.checks import NO_LOSS, UP_TO_DATE, check_results
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import temperatures, with_broken
from ingest_pipeline_tests.orchestration.test_checks import newest
from ingest_pipeline_tests.orchestration.test_metrics import scraped
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]
COUNTERS = ("next_offset", "rows", "dead_letters", "open_letters", "skipped", "absent", "lost", "accounted")


def status(here: Bench, code: int) -> dict[str, Any]:
    (stream,) = json.loads(ingest(here, "status", "--json", code=code))
    return dict(stream)


def of_ledger(stream: dict[str, Any]) -> list[list[Any]]:
    return [[at[name] for name in COUNTERS] for at in stream["partitions"]]


def test_a_topic_that_was_deleted_is_told_like_a_loss(bench: Make, kafka_server: RealKafka) -> None:
    here = bench()
    here.produce(with_broken(temperatures(8), 4))
    here.drain()
    assert here.tick().skip_message == "caught up: lag 0"
    before = status(here, 1)
    kafka_server.delete_topic(here.stream.topic)
    wait_for("the deletion to be known", lambda: here.tick().skip_message != "caught up: lag 0")
    outcome = here.tick()
    assert outcome.run_requests == []
    assert "the topic of its 2 positions is gone" in outcome.skip_message
    assert "ingest accept-loss temperature" in outcome.skip_message
    assert newest(here, NO_LOSS) == (False, outcome.skip_message)
    assert {each.name: each.description for each in check_results(here.context)}[NO_LOSS] == outcome.skip_message
    after = status(here, 2)
    assert (after["level"], after["messages"][0], after["lag"]) == ("stopped", outcome.skip_message, None)
    assert of_ledger(after) == of_ledger(before)
    assert "the topic of its 2 positions is gone" in ingest(here, "check", code=1)
    kafka_server.create_topic(here.stream.topic, 2)
    ingest(here, "accept-loss", "temperature", "--yes")
    here.drain()
    assert newest(here, NO_LOSS)[0]


def test_while_kafka_is_away_the_ledger_is_told(bench: Make) -> None:
    there = bench()
    there.produce(with_broken(temperatures(8), 4))
    there.drain()
    here = bench(streams=there.streams, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9", DATABASE_URL=there.url)
    with closing(here.clients.writing_connection("0ddba11-and-more")) as connection:
        owner = here.clients.ledger_session(connection, here.stream)
        owner.own([1], exact=True)
        found = status(here, 3)
        assert (found["level"], found["lag"], found["open_letters"]) == ("unknown", None, 2)
        assert "127.0.0.1:9" in found["messages"][0]
        assert re.fullmatch(
            r"2 open dead letters: 2x .+\. To see them: ingest dead-letters list temperature", found["messages"][1]
        )
        assert [at["owner"] for at in found["partitions"]] == [None, "0ddba11-and-more"]
    assert [(at["end"], at["lag"], at["delay"]) for at in found["partitions"]] == [(None, None, None)] * 2
    assert of_ledger(found) == of_ledger(status(there, 1))
    ends = ("ingest_end_offset", "ingest_lag_records", "ingest_delay_seconds")
    told, known = scraped(here), scraped(there)
    assert told["ingest_open_dead_letters", "temperature", "1", "decode", ""] == 2
    states = {key for key in known if key[0] == "ingest_stream_state"}
    assert told.keys() == {key for key in known if key[0] not in ends}
    assert all(told[key] == known[key] for key in told.keys() - states)
    said = {each.name: each.description for each in check_results(here.context)}[UP_TO_DATE]
    assert said.startswith("unknown: ")

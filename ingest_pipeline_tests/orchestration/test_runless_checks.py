"""The sensor reports a check's change once while the stream has no run."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from ingest_pipeline.core.errors import KafkaUnavailable
from ingest_pipeline.orchestration.checks import (
    ACCOUNTED,
    AS_DECLARED,
    NO_LOSS,
    UNKNOWN,
    UP_TO_DATE,
    WITHIN_LIMIT,
    CheckResult,
)
from ingest_pipeline.orchestration.sensor.runless_checks import CHECK_SECONDS, IDLE_SECONDS
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import temperatures, with_broken
from ingest_pipeline_tests.orchestration.test_checks import newest
from ingest_pipeline_tests.orchestration.test_data_loss import delete_before, refused
from ingest_pipeline_tests.orchestration.test_sensor import failing_tick
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
Make = Callable[..., Bench]


def tick_later(bench: Bench) -> SensorExecutionData:
    """A tick at which the checks are due."""
    bench.clock.seconds += CHECK_SECONDS
    return bench.tick()


def results(bench: Bench, name: str = UP_TO_DATE) -> list[bool]:
    """Whether the check's evaluations passed, oldest first."""
    key = dg.AssetCheckKey(dg.AssetKey("temperature"), name)
    records = bench.instance.event_log_storage.get_asset_check_execution_history(key, limit=50)
    events = [record.event.dagster_event for record in reversed(records) if record.event is not None]
    return [event.asset_check_evaluation_data.passed for event in events if event is not None]


def test_a_paused_stream_turns_late_once_and_recovers(make_bench: Make) -> None:
    bench = make_bench(MAX_DELAY_SECONDS="1")
    bench.produce(temperatures(4))
    bench.drain()
    ledger = bench.clients.ledger(bench.stream)
    ledger.pause("a test", "ann")
    tick_later(bench)
    assert results(bench) == [True]
    bench.produce(temperatures(2, first=4))

    def late() -> bool:
        tick_later(bench)
        return not newest(bench, UP_TO_DATE)[0]

    wait_for("the records' age", late, every=0.5)
    assert newest(bench, UP_TO_DATE)[1].startswith("lag 2; the table is ")
    tick_later(bench)
    assert results(bench) == [True, False]
    bench.instance.report_runless_asset_event(dg.AssetMaterialization("temperature"))
    tick_later(bench)
    tick_later(bench)
    assert results(bench) == [True, False, False]
    bench.query("update ingest.position set next_offset = next_offset + 1, absent = absent + 1")
    tick_later(bench)
    assert (results(bench), newest(bench, UP_TO_DATE)[1][:5]) == ([True, False, False, True], "lag 0")


def test_an_accepted_loss_turns_green_without_a_run(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=1)
    bench.produce(temperatures(5, partitions=1))
    bench.drain()
    tick_later(bench)
    bench.produce(temperatures(5, partitions=1, first=5))
    delete_before(kafka_server, bench.stream.topic, 8)
    bench.clock.seconds += CHECK_SECONDS
    lost = refused(bench)
    assert newest(bench, NO_LOSS) == (False, lost)
    ingest(bench, "accept-loss", "temperature", "--from", "latest", "--yes")
    assert tick_later(bench).skip_message == "caught up: lag 0"
    assert newest(bench, NO_LOSS) == (True, "Kafka holds the next offset of every partition")
    count = len(results(bench, NO_LOSS))
    tick_later(bench)
    assert len(results(bench, NO_LOSS)) == count


def test_settled_letters_turn_green_without_a_run(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(with_broken(temperatures(8), 8))
    bench.drain()
    tick_later(bench)
    assert not any(results(bench, WITHIN_LIMIT))
    ingest(bench, "dead-letters", "discard", "temperature", "--yes")
    bench.clock.seconds += IDLE_SECONDS
    tick_later(bench)
    assert newest(bench, WITHIN_LIMIT) == (True, "no open dead letters")


def test_failing_ticks_report_that_up_to_date_is_unknown(make_bench: Make) -> None:
    bench = make_bench(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    message = failing_tick(bench)
    bench.clock.seconds += CHECK_SECONDS
    failing_tick(bench)
    assert results(bench) == [False]
    assert newest(bench, UP_TO_DATE) == (False, f"unknown: {message}")


def test_the_first_answer_after_an_outage_turns_green_at_once(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(4))
    bench.drain()
    outage = True

    def identities(ask: Callable[..., Any], topics: Any) -> Any:
        if outage:
            raise KafkaUnavailable("no answer")
        return ask(topics)

    bench.clients.changes["topics"]["identities"] = identities
    failing_tick(bench)
    bench.clock.seconds += CHECK_SECONDS
    failing_tick(bench)
    assert newest(bench, UP_TO_DATE) == (False, "unknown: no answer")
    outage = False
    bench.tick()
    assert newest(bench, UP_TO_DATE)[0]


def test_a_short_outage_is_not_reported(make_bench: Make) -> None:
    bench = make_bench(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    failing_tick(bench)
    failing_tick(bench)
    assert results(bench) == []


def test_a_check_that_an_outage_left_unknown_is_evaluated_again(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(4))
    bench.drain()
    for name in (ACCOUNTED, AS_DECLARED):
        unknown = CheckResult(name, False, f"{UNKNOWN}: PostgreSQL is not reachable", grave=False)
        bench.instance.report_runless_asset_event(unknown.evaluation(dg.AssetKey("temperature")))
        assert not newest(bench, name)[0]
    tick_later(bench)
    assert newest(bench, ACCOUNTED)[0]
    assert newest(bench, AS_DECLARED)[0]

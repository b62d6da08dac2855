"""Checks without a run: what the sensor says of them, and that it says it once."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from ingest_pipeline.orchestration.checks import NO_LOSS, UP_TO_DATE
from ingest_pipeline.orchestration.sensor import runless_checks
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import temperatures
from ingest_pipeline_tests.orchestration.test_checks import newest
from ingest_pipeline_tests.orchestration.test_data_loss import delete_before, refused
from ingest_pipeline_tests.orchestration.test_sensor import failing_tick
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]


@pytest.fixture(autouse=True)
def at_each_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runless_checks, "LOOK_SECONDS", 0.0)


def told(here: Bench, name: str = UP_TO_DATE) -> list[bool]:
    """Each evaluation of the check, the oldest first: passed or not."""
    key = dg.AssetCheckKey(dg.AssetKey("temperature"), name)
    found = here.instance.event_log_storage.get_asset_check_execution_history(key, limit=50)
    events = [record.event.dagster_event for record in reversed(found) if record.event is not None]
    return [event.asset_check_evaluation_data.passed for event in events if event is not None]


def test_a_paused_stream_turns_late_once_and_is_well_again(bench: Make) -> None:
    here = bench(MAX_DELAY_SECONDS="1")
    here.produce(temperatures(4))
    here.drain()
    ledger = here.clients.ledger(here.stream)
    ledger.pause("a test", "ann")
    here.tick()
    assert told(here) == [True]
    here.produce(temperatures(2, first=4))

    def late() -> bool:
        here.tick()
        return not newest(here, UP_TO_DATE)[0]

    wait_for("the records' age", late, every=0.5)
    assert newest(here, UP_TO_DATE)[1].startswith("lag 2; the table is ")
    here.tick()
    assert told(here) == [True, False]
    here.instance.report_runless_asset_event(dg.AssetMaterialization("temperature"))
    here.tick()
    here.tick()
    assert told(here) == [True, False, False]
    here.query("update ingest.position set next_offset = next_offset + 1, absent = absent + 1")
    here.tick()
    assert (told(here), newest(here, UP_TO_DATE)[1][:5]) == ([True, False, False, True], "lag 0")


def test_a_loss_is_green_once_it_is_accepted_though_no_run_comes_of_it(bench: Make, kafka_server: RealKafka) -> None:
    here = bench(partitions=1)
    here.produce(temperatures(5, partitions=1))
    here.drain()
    here.tick()
    here.produce(temperatures(5, partitions=1, first=5))
    delete_before(kafka_server, here.stream.topic, 8)
    lost = refused(here)
    assert newest(here, NO_LOSS) == (False, lost)
    ingest(here, "accept-loss", "temperature", "--from", "latest", "--yes")
    assert here.tick().skip_message == "caught up: lag 0"
    assert newest(here, NO_LOSS) == (True, "Kafka holds the next offset of every partition")
    count = len(told(here, NO_LOSS))
    here.tick()
    assert len(told(here, NO_LOSS)) == count


def test_ticks_that_fail_say_that_it_cannot_be_told(bench: Make) -> None:
    here = bench(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    said = failing_tick(here)
    failing_tick(here)
    assert told(here) == [False]
    assert newest(here, UP_TO_DATE) == (False, f"could not be evaluated: {said}")


def test_an_outage_of_a_moment_is_no_news(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runless_checks, "LOOK_SECONDS", 60.0)
    here = bench(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    failing_tick(here)
    failing_tick(here)
    assert told(here) == []

"""`ingest status`: rates, owners and refused records of each partition."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from typing import Any, NoReturn

import dagster as dg
import pytest
from confluent_kafka import Producer
from dagster._core.test_utils import create_run_for_test

from ingest_pipeline.core.loss import noted_loss
from ingest_pipeline.operations.levels import Level
from ingest_pipeline.operations.status import status_of
from ingest_pipeline.orchestration import tags
from ingest_pipeline.postgres.table_reads import rows_per_second
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import temperatures, with_broken

pytestmark = [pytest.mark.kafka, pytest.mark.empty_database]
Make = Callable[..., Bench]
AHEAD = 3000
"""Kafka refuses a record whose time lies more than an hour ahead, unless the topic allows it."""


def partitions(here: Bench, code: int = 0) -> list[dict[str, Any]]:
    (stream,) = json.loads(ingest(here, "status", "--json", code=code))
    found: list[dict[str, Any]] = stream["partitions"]
    return found


def rates(here: Bench) -> list[float]:
    return [at["rows_per_second"] for at in partitions(here)]


class TestRate:
    @pytest.fixture
    def here(self, bench: Make) -> Bench:
        """Two partitions of 30 rows: the first five of each an hour old, the others and the positions of this moment,
        however long the test takes."""
        here = bench()
        here.produce(temperatures(60))
        here.drain()
        here.query("update temperature set ingested_at = now() - interval '1 hour' where kafka_offset < 5")
        here.query("update temperature set ingested_at = now() + interval '1 hour' where kafka_offset >= 5")
        here.query("update ingest.position set updated_at = now() + interval '1 hour'")
        return here

    def test_rows_of_the_last_minute_a_second(self, here: Bench) -> None:
        assert rates(here) == [pytest.approx(25 / 60)] * 2

    def test_a_partition_that_does_not_move_is_at_zero(self, here: Bench) -> None:
        here.query(
            "update ingest.position set updated_at = now() - interval '61 seconds' where kafka_partition = 1",
        )
        assert rates(here) == [pytest.approx(25 / 60), 0.0]

    def test_of_many_rows_the_newest_tell(self, here: Bench) -> None:
        here.query("update temperature set ingested_at = now() - interval '20 s' where kafka_partition = 0")
        found = rows_per_second(here.clients.database(), here.stream, most_rows=10)[0]
        assert 10 / 60 <= found <= 10 / 20

    def test_a_stream_that_has_not_begun_has_none(self, bench: Make) -> None:
        assert rates(bench()) == [None, None]


def test_who_owns_and_since_when(bench: Make) -> None:
    here = bench()
    here.produce(temperatures(4))
    here.drain()
    assert [at["owner"] for at in partitions(here)] == [None, None]
    with closing(here.clients.writing_connection("0ddba11-and-more")) as connection:
        owner = here.clients.ledger_session(connection, here.stream)
        owner.own([1], exact=True)
        (began,) = here.query(
            "select backend_start from pg_stat_activity where application_name = %s", "ingest 0ddba11-and-more"
        )
        free, owned = partitions(here)
        assert (free["owner"], free["owner_since"]) == (None, None)
        assert (owned["owner"], datetime.fromisoformat(owned["owner_since"])) == ("0ddba11-and-more", began)
        assert f"0ddba11- since {began.astimezone():%H:%M:%S}" in ingest(here, "status")


def test_open_letters_are_those_of_their_partition(bench: Make) -> None:
    here = bench()
    here.produce(with_broken(temperatures(8), 4))
    here.drain()
    (first, second) = partitions(here, code=1)
    assert (first["open_letters"], first["refused"]) == (0, [])
    assert (second["open_letters"], second["dead_letters"]) == (2, 2)
    assert second["refused"] == [{"stage": "decode", "sqlstate_class": "", "letters": 2}]
    ingest(here, "dead-letters", "discard", "temperature", "--yes")
    assert [(at["open_letters"], at["dead_letters"]) for at in partitions(here)] == [(0, 0), (0, 2)]


def test_a_sensor_that_does_not_look_any_more_is_told(bench: Make) -> None:
    here = bench()
    here.produce(temperatures(4))
    here.drain()
    assert ingest(here, "status", code=0).startswith("temperature healthy")  # drained by hand, never a sensor
    here.tick()
    (looked,) = here.query("select ticked_at from ingest.stream_state")
    here.tick()
    assert here.query("select ticked_at from ingest.stream_state") == [looked]  # once a minute
    assert ingest(here, "status", code=0).startswith("temperature healthy")
    here.query("update ingest.stream_state set ticked_at = now() - interval '1 hour'")
    assert "temperature_sensor has not looked for 1:00:0" in ingest(here, "status", code=1)
    ingest(here, "pause", "temperature", "--reason", "a test")
    both = ingest(here, "status", code=2)
    assert re.search(r"paused: a test \(\w+\), since 20[-\d]+ [\d:]+ UTC. To go on: ingest resume temperature\n", both)
    assert "temperature_sensor has not looked" in both
    here.tick()
    assert "has not looked" not in ingest(here, "status", code=2)


class TestFailure:
    """Why the last run failed, until something moves or somebody has acted."""

    def failed(self, here: Bench, code: int) -> str:
        said = [line for line in ingest(here, "status", code=code).splitlines() if "the last run failed" in line]
        return re.sub(r"20[-\d]+ [\d:]+ UTC", "NOW", "".join(said).strip())

    def test_more_refused_records_than_the_limit_allows(self, bench: Make) -> None:
        here = bench(DEAD_LETTER_MAX_CONSECUTIVE="3")
        here.produce(with_broken(temperatures(8), 1))
        assert not here.by_sensor().success
        assert "were refused" in self.failed(here, code=2)
        ingest(here, "dead-letters", "allow", "temperature", "--count", "100")
        assert self.failed(here, code=0) == "", "somebody has acted"
        here.drain()
        assert self.failed(here, code=1) == ""

    def test_a_table_that_is_not_as_declared(self, bench: Make) -> None:
        here = bench()
        here.produce(temperatures(4))
        here.drain()
        here.produce(temperatures(4, first=4))
        here.query("alter table temperature alter temperature type real")
        assert not here.by_sensor().success
        assert "column temperature is real" in self.failed(here, code=2)
        here.query("alter table temperature alter temperature type double precision")
        here.drain()
        assert self.failed(here, code=0) == "", "it has moved"

    def test_an_outage_that_may_be_over(self, bench: Make) -> None:
        here = bench(RETRY_SECONDS="0")
        here.produce(temperatures(4))
        here.drain()
        here.query(
            "create function fill() returns trigger language plpgsql as"
            " $$ begin raise 'full' using errcode = '53100'; end $$"
        )
        here.query("create trigger fill before insert on temperature execute function fill()")
        here.produce(temperatures(4, first=4))
        assert not here.by_sensor().success
        assert "writing stream temperature: 53100" in self.failed(here, code=1)

    def test_a_bug(self, bench: Make) -> None:
        here = bench()
        here.produce(temperatures(4))

        def broken(*_: object) -> NoReturn:
            raise KeyError("secret")

        here.clients.changes["ledger_session"]["write"] = broken
        assert not here.by_sensor().success
        said = "the last run failed, NOW: a bug, KeyError: its traceback is in Dagster's log of the run"
        assert self.failed(here, code=2) == said

    def test_a_loss_is_told_once_and_since_when(self, bench: Make) -> None:
        here = bench()
        here.produce(temperatures(4))
        here.drain()
        ledger = here.clients.ledger(here.stream)
        at = ledger.positions()[0]
        ledger.note_loss(
            noted_loss(
                cause="truncated", partition=0, incarnation=at.incarnation, expected=at.next_offset, low=0, high=1
            )
        )
        ledger.note_failure("it lost something", True)
        said = ingest(here, "status", code=2)
        assert re.search(r"\(the log held 0 to 1\), found 20[-\d]+ [\d:]+ UTC. To go on: ingest accept-loss", said)
        assert "the last run failed" not in said


def test_runs_that_end_again_and_again_without_progress_are_told(bench: Make) -> None:
    """Each of them is SUCCESS in Dagster."""
    here = bench()
    here.produce(temperatures(4))
    here.drain()
    here.produce(temperatures(4, first=4))
    definition = tags.definition_of(here.stream, here.settings)
    found = {tags.STREAM: "temperature", tags.SHARD: "0/1", tags.DEFINITION: definition, tags.ENDED: "superseded"}
    for _ in range(3):
        assert "the last run failed" not in ingest(here, "status")
        create_run_for_test(here.instance, "drain_temperature", status=dg.DagsterRunStatus.SUCCESS, tags=found)
        said = here.tick().skip_message or ""
    assert re.fullmatch(
        r"backing off: the last 3 runs ended without progress \(superseded\), next try in \d+ s; lag 4", said
    )
    why = "it ended without progress (superseded), and so did the 2 runs before it"
    assert why in ingest(here, "status", code=1)
    here.drain()
    assert ingest(here, "status").startswith("temperature healthy")


class TestDelay:
    """Records wait for more than MAX_DELAY_SECONDS."""

    def late(self, here: Bench) -> dict[str, Any]:
        """`ingest status` once it tells of them."""
        wait_for("the records' age", lambda: status_of(here.context).late)
        (stream,) = json.loads(ingest(here, "status", "--json", code=2))
        assert (stream["level"], stream["messages"]) == ("stopped", stream["late"])
        return dict(stream)

    def test_a_table_that_is_behind_is_told(self, bench: Make) -> None:
        here = bench(MAX_DELAY_SECONDS="1")
        here.produce(temperatures(4))
        here.drain()
        here.produce(temperatures(2, first=4))
        (said,) = self.late(here)["messages"]
        assert re.fullmatch(r"the table is \d+ s behind, 1 s are allowed", said)
        here.drain()
        assert ingest(here, "status", code=0).startswith("temperature healthy")

    def test_a_table_without_a_row_is_told(self, bench: Make) -> None:
        here = bench(MAX_DELAY_SECONDS="1")
        here.produce(temperatures(3))
        found = self.late(here)
        assert found["messages"] == [
            "3 records wait, some for more than the 1 s that are allowed, and no row is stored of partition 0, 1"
        ]
        assert [at["delay"] for at in found["partitions"]] == [None, None]

    def test_a_stream_that_wakes_up_is_not_late(self, bench: Make) -> None:
        here = bench()
        here.produce(temperatures(4))
        here.drain()
        here.query("update temperature set kafka_timestamp = now() - interval '1 hour'")
        here.tick()
        here.produce(temperatures(2, first=4))
        found = partitions(here)
        assert [at["delay"] for at in found] == [0.0, 0.0]

    @pytest.mark.parametrize("at", [time.time() + AHEAD, 1_577_836_800.0], ids=["ahead", "of 2020"])
    @pytest.mark.parametrize("looks", [True, False], ids=["with a sensor", "by hand alone"])
    def test_producers_clocks_have_no_say(self, bench: Make, at: float, looks: bool) -> None:
        here = bench(partitions=1, MAX_DELAY_SECONDS="1")
        here.produce(temperatures(4, partitions=1))
        here.drain()
        if looks:
            here.tick()
        dated(here, 100, at)

        def late() -> list[str] | None:
            if looks:
                here.tick()
            return status_of(here.context).late

        (said,) = wait_for("the records' wait", late, every=0.2)
        behind = re.fullmatch(r"the table is (\d+) s behind, 1 s are allowed", said)
        assert behind is not None
        assert int(behind[1]) < 3600
        found = status_of(here.context)
        assert (found.level, found.lag) == (Level.STOPPED, 100)
        if looks:
            delay = found.partitions[0].delay
            assert delay is not None
            assert 1 < delay < 3600

    def test_records_of_2020_that_came_just_now_are_not_late(self, bench: Make) -> None:
        here = bench(partitions=1)
        here.produce(temperatures(4, partitions=1))
        here.drain()
        here.query("update ingest.position set updated_at = now() - interval '1 day'")
        here.tick()
        dated(here, 100, 1_577_836_800.0)
        here.tick()
        assert status_of(here.context).late == []

    def test_a_stream_that_never_began_is_not_healthy(self, bench: Make) -> None:
        here = bench(partitions=1)
        dated(here, 100, time.time() + AHEAD)
        said = " ".join(status_of(here.context).messages)
        assert "no run drains, and 100 records wait" in said


def dated(here: Bench, count: int, at: float) -> None:
    """Records whose producer's clock says that time."""
    producer = Producer({"bootstrap.servers": here.bootstrap_servers})
    for record in temperatures(count, partitions=1):
        producer.produce(here.stream.topic, record.value, partition=0, timestamp=int(at * 1000), on_delivery=_delivered)
    assert producer.flush(30) == 0


def _delivered(error: Any, _: object) -> None:
    assert error is None, error

"""`ingest status`: rates, owners and refused records of each partition."""

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


def partitions(bench: Bench, code: int = 0) -> list[dict[str, Any]]:
    (stream,) = json.loads(ingest(bench, "status", "--json", code=code))
    found: list[dict[str, Any]] = stream["partitions"]
    return found


def rates(bench: Bench) -> list[float]:
    return [partition["rows_per_second"] for partition in partitions(bench)]


class TestRate:
    @pytest.fixture
    def bench(self, make_bench: Make) -> Bench:
        """Two partitions of 30 rows: the first five of each an hour old, the others and the positions of this moment,
        however long the test takes."""
        bench = make_bench()
        bench.produce(temperatures(60))
        bench.drain()
        bench.query("update temperature set ingested_at = now() - interval '1 hour' where kafka_offset < 5")
        bench.query("update temperature set ingested_at = now() + interval '1 hour' where kafka_offset >= 5")
        bench.query("update ingest.position set updated_at = now() + interval '1 hour'")
        return bench

    def test_rows_of_the_last_minute_a_second(self, bench: Bench) -> None:
        assert rates(bench) == [pytest.approx(25 / 60)] * 2

    def test_a_partition_that_does_not_move_is_at_zero(self, bench: Bench) -> None:
        bench.query(
            "update ingest.position set updated_at = now() - interval '61 seconds' where kafka_partition = 1",
        )
        assert rates(bench) == [pytest.approx(25 / 60), 0.0]

    def test_of_many_rows_the_newest_tell(self, bench: Bench) -> None:
        bench.query("update temperature set ingested_at = now() - interval '20 s' where kafka_partition = 0")
        found = rows_per_second(bench.clients.database(), bench.stream, most_rows=10)[0]
        assert 10 / 60 <= found <= 10 / 20

    def test_a_stream_that_has_not_begun_has_none(self, make_bench: Make) -> None:
        assert rates(make_bench()) == [None, None]


def test_who_owns_and_since_when(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(4))
    bench.drain()
    assert [partition["owner"] for partition in partitions(bench)] == [None, None]
    with closing(bench.clients.writing_connection("0ddba11-and-more")) as connection:
        owner = bench.clients.ledger_session(connection, bench.stream)
        owner.own([1], exact=True)
        (began,) = bench.query(
            "select backend_start from pg_stat_activity where application_name = %s", "ingest 0ddba11-and-more"
        )
        free, owned = partitions(bench)
        assert (free["owner"], free["owner_since"]) == (None, None)
        assert (owned["owner"], datetime.fromisoformat(owned["owner_since"])) == ("0ddba11-and-more", began)
        assert f"0ddba11- since {began.astimezone():%H:%M:%S}" in ingest(bench, "status")


def test_open_letters_are_those_of_their_partition(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(with_broken(temperatures(8), 4))
    bench.drain()
    (first, second) = partitions(bench, code=1)
    assert (first["open_letters"], first["refused"]) == (0, [])
    assert (second["open_letters"], second["dead_letters"]) == (2, 2)
    assert second["refused"] == [{"stage": "decode", "sqlstate_class": "", "letters": 2}]
    ingest(bench, "dead-letters", "discard", "temperature", "--yes")
    assert [(partition["open_letters"], partition["dead_letters"]) for partition in partitions(bench)] == [
        (0, 0),
        (0, 2),
    ]


def test_status_reports_a_sensor_without_ticks(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(temperatures(4))
    bench.drain()
    assert ingest(bench, "status", code=0).startswith("temperature healthy")  # drained by hand, never a sensor
    bench.tick()
    (looked,) = bench.query("select ticked_at from ingest.stream_state")
    bench.tick()
    assert bench.query("select ticked_at from ingest.stream_state") == [looked]  # once a minute
    assert ingest(bench, "status", code=0).startswith("temperature healthy")
    bench.query("update ingest.stream_state set ticked_at = now() - interval '1 hour'")
    assert "temperature_sensor has not looked for 1:00:0" in ingest(bench, "status", code=1)
    ingest(bench, "pause", "temperature", "--reason", "a test")
    both = ingest(bench, "status", code=2)
    assert re.search(r"paused: a test \(\w+\), since 20[-\d]+ [\d:]+ UTC. To go on: ingest resume temperature\n", both)
    assert "temperature_sensor has not looked" in both
    bench.tick()
    assert "has not looked" not in ingest(bench, "status", code=2)


class TestFailure:
    """Why the last run failed, until something moves or somebody has acted."""

    def failed(self, bench: Bench, code: int) -> str:
        message = [line for line in ingest(bench, "status", code=code).splitlines() if "the last run failed" in line]
        return re.sub(r"20[-\d]+ [\d:]+ UTC", "NOW", "".join(message).strip())

    def test_more_refused_records_than_the_limit_allows(self, make_bench: Make) -> None:
        bench = make_bench(DEAD_LETTER_MAX_CONSECUTIVE="3")
        bench.produce(with_broken(temperatures(8), 1))
        assert not bench.by_sensor().success
        assert "were refused" in self.failed(bench, code=2)
        ingest(bench, "dead-letters", "allow", "temperature", "--count", "100")
        assert self.failed(bench, code=0) == "", "somebody has acted"
        bench.drain()
        assert self.failed(bench, code=1) == ""

    def test_a_table_that_is_not_as_declared(self, make_bench: Make) -> None:
        bench = make_bench()
        bench.produce(temperatures(4))
        bench.drain()
        bench.produce(temperatures(4, first=4))
        bench.query("alter table temperature alter temperature type real")
        assert not bench.by_sensor().success
        assert "column temperature is real" in self.failed(bench, code=2)
        bench.query("alter table temperature alter temperature type double precision")
        bench.drain()
        assert self.failed(bench, code=0) == "", "it has moved"

    def test_an_outage_that_may_be_over(self, make_bench: Make) -> None:
        bench = make_bench(RETRY_SECONDS="0")
        bench.produce(temperatures(4))
        bench.drain()
        bench.query(
            "create function fill() returns trigger language plpgsql as"
            " $$ begin raise 'full' using errcode = '53100'; end $$"
        )
        bench.query("create trigger fill before insert on temperature execute function fill()")
        bench.produce(temperatures(4, first=4))
        assert not bench.by_sensor().success
        assert "writing stream temperature: 53100" in self.failed(bench, code=1)

    def test_a_bug(self, make_bench: Make) -> None:
        bench = make_bench()
        bench.produce(temperatures(4))

        def broken(*_: object) -> NoReturn:
            raise KeyError("secret")

        bench.clients.changes["ledger_session"]["write"] = broken
        assert not bench.by_sensor().success
        message = "the last run failed, NOW: a bug, KeyError: its traceback is in Dagster's log of the run"
        assert self.failed(bench, code=2) == message

    def test_a_loss_is_shown_once_with_its_time(self, make_bench: Make) -> None:
        bench = make_bench()
        bench.produce(temperatures(4))
        bench.drain()
        ledger = bench.clients.ledger(bench.stream)
        at = ledger.positions()[0]
        ledger.note_loss(
            noted_loss(
                cause="truncated", partition=0, incarnation=at.incarnation, expected=at.next_offset, low=0, high=1
            )
        )
        ledger.note_failure("it lost something", True)
        message = ingest(bench, "status", code=2)
        assert re.search(r"\(the log held 0 to 1\), found 20[-\d]+ [\d:]+ UTC. To go on: ingest accept-loss", message)
        assert "the last run failed" not in message


def test_repeated_runs_without_progress_are_reported(make_bench: Make) -> None:
    """Each of them is SUCCESS in Dagster."""
    bench = make_bench()
    bench.produce(temperatures(4))
    bench.drain()
    bench.produce(temperatures(4, first=4))
    definition = tags.definition_of(bench.stream, bench.settings)
    found = {tags.STREAM: "temperature", tags.SHARD: "0/1", tags.DEFINITION: definition, tags.ENDED: "superseded"}
    for _ in range(3):
        assert "the last run failed" not in ingest(bench, "status")
        create_run_for_test(bench.instance, "drain_temperature", status=dg.DagsterRunStatus.SUCCESS, tags=found)
        message = bench.tick().skip_message or ""
    assert re.fullmatch(
        r"backing off: the last 3 runs ended without progress \(superseded\), next try in \d+ s; lag 4", message
    )
    why = "it ended without progress (superseded), and so did the 2 runs before it"
    assert why in ingest(bench, "status", code=1)
    bench.drain()
    assert ingest(bench, "status").startswith("temperature healthy")


class TestDelay:
    """Records wait for more than MAX_DELAY_SECONDS."""

    def late(self, bench: Bench) -> dict[str, Any]:
        """`ingest status` once it tells of them."""
        wait_for("the records' age", lambda: status_of(bench.context).late)
        (stream,) = json.loads(ingest(bench, "status", "--json", code=2))
        assert (stream["level"], stream["messages"]) == ("stopped", stream["late"])
        return dict(stream)

    def test_status_reports_a_table_behind_its_topic(self, make_bench: Make) -> None:
        bench = make_bench(MAX_DELAY_SECONDS="1")
        bench.produce(temperatures(4))
        bench.drain()
        bench.produce(temperatures(2, first=4))
        (message,) = self.late(bench)["messages"]
        assert re.fullmatch(r"the table is \d+ s behind, 1 s are allowed", message)
        bench.drain()
        assert ingest(bench, "status", code=0).startswith("temperature healthy")

    def test_status_reports_an_empty_table(self, make_bench: Make) -> None:
        bench = make_bench(MAX_DELAY_SECONDS="1")
        bench.produce(temperatures(3))
        found = self.late(bench)
        assert found["messages"] == [
            "3 records wait, some for more than the 1 s that are allowed, and no row is stored of partition 0, 1"
        ]
        assert [partition["delay"] for partition in found["partitions"]] == [None, None]

    def test_a_stream_that_wakes_up_is_not_late(self, make_bench: Make) -> None:
        bench = make_bench()
        bench.produce(temperatures(4))
        bench.drain()
        bench.query("update temperature set kafka_timestamp = now() - interval '1 hour'")
        bench.tick()
        bench.produce(temperatures(2, first=4))
        found = partitions(bench)
        assert [partition["delay"] for partition in found] == [0.0, 0.0]

    @pytest.mark.parametrize("at", [time.time() + AHEAD, 1_577_836_800.0], ids=["ahead", "of 2020"])
    @pytest.mark.parametrize("looks", [True, False], ids=["with a sensor", "by hand alone"])
    def test_producers_clocks_have_no_say(self, make_bench: Make, at: float, looks: bool) -> None:
        bench = make_bench(partitions=1, MAX_DELAY_SECONDS="1")
        bench.produce(temperatures(4, partitions=1))
        bench.drain()
        if looks:
            bench.tick()
        dated(bench, 100, at)

        def late() -> list[str] | None:
            if looks:
                bench.tick()
            return status_of(bench.context).late

        (message,) = wait_for("the records' wait", late, every=0.2)
        behind = re.fullmatch(r"the table is (\d+) s behind, 1 s are allowed", message)
        assert behind is not None
        assert int(behind[1]) < 3600
        found = status_of(bench.context)
        assert (found.level, found.lag) == (Level.STOPPED, 100)
        if looks:
            delay = found.partitions[0].delay
            assert delay is not None
            assert 1 < delay < 3600

    def test_records_of_2020_that_came_just_now_are_not_late(self, make_bench: Make) -> None:
        bench = make_bench(partitions=1)
        bench.produce(temperatures(4, partitions=1))
        bench.drain()
        bench.query("update ingest.position set updated_at = now() - interval '1 day'")
        bench.tick()
        dated(bench, 100, 1_577_836_800.0)
        bench.tick()
        assert status_of(bench.context).late == []

    def test_a_stream_that_never_began_is_not_healthy(self, make_bench: Make) -> None:
        bench = make_bench(partitions=1)
        dated(bench, 100, time.time() + AHEAD)
        message = " ".join(status_of(bench.context).messages)
        assert "no run drains, and 100 records wait" in message


def dated(bench: Bench, count: int, at: float) -> None:
    """Records whose producer's clock says that time."""
    producer = Producer({"bootstrap.servers": bench.bootstrap_servers})
    for record in temperatures(count, partitions=1):
        producer.produce(
            bench.stream.topic, record.value, partition=0, timestamp=int(at * 1000), on_delivery=_delivered
        )
    assert producer.flush(30) == 0


def _delivered(error: Any, _: object) -> None:
    assert error is None, error


def test_an_operator_hears_when_the_stream_goes_on(make_bench: Make) -> None:
    bench = make_bench()
    allow = "dead-letters", "allow", "temperature", "--count", "5"
    assert ingest(bench, *allow).endswith(": temperature_sensor launches a run within seconds, if it is on\n")
    ingest(bench, "pause", "temperature")
    assert ingest(bench, *allow).endswith(": temperature stays paused until `ingest resume temperature`\n")

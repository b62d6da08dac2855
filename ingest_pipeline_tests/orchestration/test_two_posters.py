"""Alerts of two processes: a real HTTP server gets each message once, as long as that can be known."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from ingest_pipeline.core.roles import Role
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.sensor.alerts import SENSOR
from ingest_pipeline.settings import load_settings
from ingest_pipeline_tests.orchestration.bench import Bench, ChangedClients, wait_for
from ingest_pipeline_tests.orchestration.conftest import TEMPERATURE
from ingest_pipeline_tests.orchestration.posters import (
    IS_STOPPED,
    IS_WELL,
    Metrics,
    Ticks,
    database_away,
    failing,
    first_lines,
)
from ingest_pipeline_tests.orchestration.records import temperatures, with_broken
from ingest_pipeline_tests.orchestration.webhook import Webhook, serving_webhook
from ingest_pipeline_tests.servers.postgres_roles import PostgresRoles

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serving_webhook() as server:
        yield server


def test_a_tick_whose_cursor_was_lost_does_not_post_again(make_bench: Make, webhook: Webhook) -> None:
    bench = make_bench(ALERT_AFTER_SECONDS="0")
    bench.produce(temperatures(4))
    bench.drain()
    tick = Ticks(bench, webhook.address)
    tick()
    with database_away(bench):
        tick()
    bench.query("update ingest.alert set renewed_at = now() - interval '61 s'")
    cursor = tick.cursor
    tick(60)
    tick.cursor = cursor
    tick(5)
    assert [text.split(":")[0].splitlines()[0] for text in webhook.texts] == ["temperature is unknown", IS_WELL]


class TestTwoProcesses:
    """The daemon's sensor and `ingest metrics --alerts`."""

    def test_post_once(self, make_bench: Make, webhook: Webhook) -> None:
        bench = make_bench(ALERT_AFTER_SECONDS="0")
        tick, metrics = Ticks(bench, webhook.address), Metrics(bench, webhook.address)
        tick()
        failing(bench)
        metrics()
        assert webhook.texts == []
        tick()
        metrics()
        bench.drain()
        metrics()
        tick()
        assert first_lines(webhook) == [IS_STOPPED, IS_WELL]

    def test_the_other_one_takes_over_what_was_posted(self, make_bench: Make, webhook: Webhook) -> None:
        bench = make_bench(ALERT_AFTER_SECONDS="0")
        tick, metrics = Ticks(bench, webhook.address), Metrics(bench, webhook.address)
        failing(bench)
        tick()
        bench.query("update ingest.alert set renewed_at = now() - interval '44 s'")
        assert metrics() == 0
        bench.query("update ingest.alert set renewed_at = now() - interval '46 s'")
        assert metrics() == 0
        assert bench.query("select poster from ingest.alert") == ["metrics"]
        bench.drain()
        tick()
        assert first_lines(webhook) == [IS_STOPPED]
        metrics()
        assert first_lines(webhook) == [IS_STOPPED, IS_WELL]

    def test_one_of_them_goes_on_while_the_ledger_is_away(self, make_bench: Make, webhook: Webhook) -> None:
        bench = make_bench()
        bench.produce(temperatures(4))
        bench.drain()
        tick, metrics = Ticks(bench, webhook.address), Metrics(bench, webhook.address)
        tick()
        metrics()
        with database_away(bench):
            tick()
            metrics()
            tick(61)
            metrics()
        bench.query("update ingest.alert set renewed_at = now() - interval '61 s'")
        metrics()
        tick(5)
        metrics()
        tick(5)
        assert first_lines(webhook) == [
            "temperature is unknown: reading the ledger of stream temperature at "
            + f"{bench.url.split('@')[1]}: 55000, the database takes no sessions: ALTER DATABASE … ALLOW_CONNECTIONS"
            + webhook.texts[0].split("ALLOW_CONNECTIONS")[1].splitlines()[0],
            IS_WELL,
        ]


IS_UNKNOWN = "temperature is unknown"
LEASE = 46.0


def heads(webhook: Webhook) -> list[str]:
    """The messages without their details."""
    return [line.split(": ")[0] for line in first_lines(webhook)]


def wait(bench: Bench, seconds: float) -> None:
    """So many seconds pass, for the ledger too."""
    bench.clock.seconds += seconds
    bench.query("update ingest.alert set renewed_at = renewed_at - make_interval(secs => %s)", seconds)


class TestALedgerThatIsAway:
    """The first process to look posts about the stream."""

    @pytest.fixture
    def bench(self, make_bench: Make) -> Bench:
        bench = make_bench()
        bench.produce(temperatures(4))
        bench.drain()
        return bench

    @pytest.fixture
    def tick(self, bench: Bench, webhook: Webhook) -> Ticks:
        tick = Ticks(bench, webhook.address)
        tick()
        return tick

    @pytest.fixture
    def metrics(self, bench: Bench, tick: Ticks, webhook: Webhook) -> Metrics:
        metrics = Metrics(bench, webhook.address)
        metrics()
        return metrics

    def test_the_other_one_posts_if_the_first_one_has_died(
        self, bench: Bench, tick: Ticks, metrics: Metrics, webhook: Webhook
    ) -> None:
        with database_away(bench):
            for seconds in (0, 44, 2, 59):
                bench.clock.seconds += seconds
                assert metrics() == 0
            bench.clock.seconds += 1
            assert metrics() == 1
        assert metrics() == 0, "the first one may come back"
        wait(bench, LEASE)
        assert [metrics(), metrics()] == [1, 0]
        tick(5)
        assert heads(webhook) == [IS_UNKNOWN, IS_WELL]

    def test_what_the_first_one_posted_before_it_died_ends_once_it_is_back(
        self, bench: Bench, tick: Ticks, metrics: Metrics, webhook: Webhook
    ) -> None:
        with database_away(bench):
            metrics()
            tick()
            tick(60)
        wait(bench, LEASE)
        assert metrics() == 0, "the other one has not heard of the message"
        tick()
        metrics()
        tick(5)
        metrics()
        assert heads(webhook) == [IS_UNKNOWN, IS_WELL]

    def test_what_was_posted_before_the_outage_is_not_posted_again_by_the_first_one(
        self, bench: Bench, tick: Ticks, metrics: Metrics, webhook: Webhook
    ) -> None:
        failing(bench)
        tick()
        tick(60)
        wait(bench, LEASE)
        metrics()
        with database_away(bench):
            metrics()
            tick(5)
            tick(50)
            metrics()
        tick(5)
        metrics()
        bench.drain()
        metrics()
        tick(5)
        assert heads(webhook) == ["temperature is stopped", IS_WELL]

    def test_both_post_a_long_outage_and_one_of_them_its_end(
        self, bench: Bench, tick: Ticks, metrics: Metrics, webhook: Webhook
    ) -> None:
        with database_away(bench):
            for seconds in (0, 60, 60):
                tick(seconds)
                metrics()
        metrics()
        tick(5)
        metrics()
        tick(5)
        assert heads(webhook) == [IS_UNKNOWN, IS_UNKNOWN, IS_WELL]

    def test_an_end_that_a_lost_cursor_does_not_know_is_not_posted_again_by_the_other_one(
        self, bench: Bench, tick: Ticks, metrics: Metrics, webhook: Webhook
    ) -> None:
        with database_away(bench):
            tick()
            tick(60)
        cursor = tick.cursor
        tick(5)
        wait(bench, LEASE)
        metrics()
        tick.cursor = cursor
        tick()
        metrics()
        assert heads(webhook) == [IS_UNKNOWN, IS_WELL]

    def test_a_ledger_that_refuses_the_process_stops_no_message(
        self, bench: Bench, tick: Ticks, webhook: Webhook
    ) -> None:
        bench.query("update ingest.schema_version set version_num = '0001'")
        tick()
        assert tick(60).startswith("1 messages posted: the ledger ingest at")
        begun = int(time.time())
        wait_for("the next second, as Dagster dates a run to the second", lambda: int(time.time()) > begun)
        create_run_for_test(bench.instance, "replay", status=dg.DagsterRunStatus.FAILURE, tags={tags.JOB: "replay"})
        tick(5)
        assert heads(webhook) == ["temperature is stopped", "job replay failed"]
        assert "run `ingest migrate`" in webhook.texts[0]

    def test_what_another_process_adds_meanwhile_stays(self, bench: Bench, tick: Ticks) -> None:
        rows = bench.clients.alert_rows()
        rows.merge({"temperature": {"no answer": [1.0, True]}}, lambda first, second: {**first, **second})
        rows.store({"temperature": ({"stuck": [1.0, True]}, {"late": [2.0, False]})}, SENSOR)
        rows.store({"temperature": ({}, {"no run": [3.0, False]})}, "metrics")
        assert bench.query("select problems from ingest.alert") == [{"no answer": [1.0, True], "late": [2.0, False]}]


@pytest.mark.empty_database
def test_a_process_without_the_right_to_post_leaves_it_to_the_other_one(
    make_bench: Make, database_url: str, webhook: Webhook
) -> None:
    made = PostgresRoles(database_url, [TEMPERATURE])
    bench = make_bench(DATABASE_URL=made.url_of(Role.WRITER))
    bench.produce(with_broken(temperatures(4), 4))
    bench.drain()
    metrics = Metrics(replace(bench, clients=clients_of(bench, made.url_of(Role.READER))), webhook.address)
    tick = Ticks(bench, webhook.address)
    for _ in range(3):
        assert metrics() == 0
        assert metrics.refusal is not None and "permission denied for table alert" in metrics.refusal
        tick(60)
    assert heads(webhook) == ["temperature is degraded"]


def clients_of(bench: Bench, database_url: str) -> ChangedClients:
    """The bench's clients with another role, and the bench's clock."""
    environ = {**bench.environ, "DATABASE_URL": database_url}
    settings = load_settings({stream.name: stream.job for stream in bench.streams}, environ)
    return ChangedClients(settings, bench.clock)

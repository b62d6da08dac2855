"""Alerts: what is posted to a real HTTP server, when, and by which process."""

from collections.abc import Callable, Iterator

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.operations.alerts import Alerts, WebhookRefused
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.orchestration.sensor.alerts import SENSOR
from ingest_pipeline.settings import describe, load_settings
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.posters import IS_STOPPED, IS_WELL, Ticks, failing, first_lines
from ingest_pipeline_tests.orchestration.records import temperatures, with_broken
from ingest_pipeline_tests.orchestration.webhook import Webhook, serving_webhook

Make = Callable[..., Bench]
FAILURE = dg.DagsterRunStatus.FAILURE
NAMES = [stream.name for stream in STREAMS]
NOWHERE = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9", "DATABASE_URL": "postgresql://x@127.0.0.1:9/x"}


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serving_webhook() as server:
        yield server


@pytest.mark.kafka
def test_the_state_is_posted_once_it_has_lasted_and_at_once_when_it_is_over(make_bench: Make, webhook: Webhook) -> None:
    bench = make_bench()
    tick = Ticks(bench, webhook.address)
    failing(bench)
    assert tick() == tick(50) == "0 messages posted"
    assert tick(10) == "1 messages posted"
    assert tick(300) == "0 messages posted"
    what, since, to_do = webhook.texts[0].splitlines()
    assert what.endswith("UTC: disk full")
    assert since.startswith("since 20")
    assert to_do == "Do what the message says, then see `ingest status temperature`."
    bench.drain()
    assert tick(5) == "1 messages posted"
    assert first_lines(webhook) == [IS_STOPPED, IS_WELL]


@pytest.mark.kafka
def test_a_run_that_was_killed_and_healed_soon_gives_no_alert(make_bench: Make, webhook: Webhook) -> None:
    bench = make_bench()
    tick = Ticks(bench, webhook.address)
    tick()
    bench.produce(temperatures(4))
    run = create_run_for_test(bench.instance, "drain_temperature", status=dg.DagsterRunStatus.STARTED)
    bench.instance.report_run_failed(run, "The run has no session with PostgreSQL.")
    tick(14)
    bench.drain()
    tick(5)
    tick(600)
    assert webhook.texts == []


@pytest.mark.kafka
def test_an_open_dead_letter_is_posted_until_it_is_settled(make_bench: Make, webhook: Webhook) -> None:
    bench = make_bench(ALERT_AFTER_SECONDS="0")
    bench.produce(with_broken(temperatures(30), 30))
    bench.drain()
    tick = Ticks(bench, webhook.address)
    tick()
    ingest(bench, "dead-letters", "discard", "temperature", "--yes")
    tick()
    assert [text.splitlines()[0] for text in webhook.texts] == [
        "temperature is degraded: 1 open dead letter: 1x Input data was truncated. To see them: ingest dead-letters"
        " list temperature",
        IS_WELL,
    ]


@pytest.mark.kafka
@pytest.mark.empty_database
def test_what_was_posted_before_the_first_run_made_the_ledger_is_not_posted_again(
    make_bench: Make, webhook: Webhook
) -> None:
    bench = make_bench(partitions=0, ALERT_AFTER_SECONDS="0")
    tick = Ticks(bench, webhook.address)
    assert [tick(), tick()] == ["1 messages posted", "0 messages posted"]
    bench.clients.ledger(bench.stream).prepare()
    assert [tick(), tick()] == ["0 messages posted"] * 2
    assert bench.query("select problems->'no topic'->1 from ingest.alert") == [True]
    assert "The sensor waits for the topic" in webhook.texts[0]


class TestServersAway:
    """Neither Kafka nor PostgreSQL answers, and the sensor posts from its memory."""

    @pytest.fixture
    def bench(self, make_bench: Make) -> Bench:
        return make_bench(streams=STREAMS, **NOWHERE)

    def test_a_server_that_refuses_for_a_moment_is_asked_again(self, bench: Bench, webhook: Webhook) -> None:
        webhook.refuse = 2
        tick = Ticks(bench, webhook.address)
        tick()
        tick(60)
        assert [text.split(":")[0] for text in webhook.texts] == ["temperature, price are unknown"]

    def test_what_could_not_be_posted_is_posted_by_a_later_tick(self, bench: Bench, webhook: Webhook) -> None:
        webhook.refuse = 1000
        tick = Ticks(bench, webhook.address)
        tick()
        message = tick(60)
        assert message == "0 messages posted: ALERT_WEBHOOK_URL cannot be posted to: RetryError"
        webhook.refuse = 0
        tick(5)
        tick(5)
        assert len(webhook.texts) == 1

    def test_a_server_that_hangs_does_not_hold_the_tick_and_gets_the_message_once(
        self, bench: Bench, webhook: Webhook
    ) -> None:
        webhook.hangs = True
        tick = Ticks(bench, webhook.address, answer_seconds=0.2)
        tick()
        assert tick(60).endswith("ALERT_WEBHOOK_URL cannot be posted to: ReadTimeout")
        assert webhook.texts == [], "the tick ended before the server answered"
        webhook.end.set()
        wait_for("the message", lambda: webhook.texts)
        assert [text.split(":")[0] for text in webhook.texts] == ["temperature, price are unknown"]
        webhook.hangs = False
        tick()
        assert len(webhook.texts) == 2, "the process cannot know whether the server took the first one"

    def test_the_address_is_not_in_an_error(self, bench: Bench) -> None:
        with pytest.raises(WebhookRefused) as refused:
            Alerts(bench.contexts, "http://127.0.0.1:9/secret-path", name="a", by_default=True).post("text")
        assert "secret" not in refused.value.message


def test_a_failed_replay_is_posted_once(make_bench: Make, webhook: Webhook) -> None:
    bench = make_bench(**NOWHERE)
    create_run_for_test(bench.instance, "replay", status=FAILURE, tags={tags.JOB: "replay"})
    tick = Ticks(bench, webhook.address)
    assert tick() == "0 messages posted", "failures before the first tick are no news"
    job = bench.definitions.resolve_job_def("replay")
    config = {"ops": {"replay_op": {"config": {"stream": "temperature", "partition": 0}}}}
    result = job.execute_in_process(instance=bench.instance, run_config=config, raise_on_error=False, tags=job.tags)
    create_run_for_test(bench.instance, "replay", status=FAILURE)  # of another project
    tick()
    tick()
    (text,) = webhook.texts
    what, at, to_do = text.splitlines()
    assert what == "job replay failed: a replay needs a first and a last offset, or a first and a last time"
    assert at.startswith("at 20")
    assert to_do.startswith(f"Run {result.run_id[:8]} in Dagster has the log.")


def test_it_is_there_only_where_an_address_is_set_and_the_address_is_secret() -> None:
    assert SENSOR not in {sensor.name for sensor in build_definitions(STREAMS, load_settings(NAMES, {})).sensors or []}
    settings = load_settings(NAMES, {"ALERT_WEBHOOK_URL": "https://hooks.example.org/T0/secret"})
    assert SENSOR in {sensor.name for sensor in build_definitions(STREAMS, settings).sensors or []}
    assert not any("secret" in row.value for row in describe(settings))
    with pytest.raises(SettingsError, match="ALERT_WEBHOOK_URL must be") as refused:
        load_settings(NAMES, {"ALERT_WEBHOOK_URL": "hooks.example.org/secret"})
    assert "secret" not in str(refused.value)

"""Alerts: what is posted, when, to a real HTTP server; and that nothing is lost while it does not answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.orchestration.checks import NO_LOSS, UP_TO_DATE, CheckResult
from ingest_pipeline.orchestration.run_history import RECENT
from ingest_pipeline.orchestration.sensor.alerts import ANSWER_SECONDS, SENSOR, alert_sensor, failing, messages
from ingest_pipeline.settings import Settings, describe, load_settings
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import failure

PRICE = STREAMS[1]
CONTEXTS = [StreamContext(stream, Clients(Settings())) for stream in STREAMS]
PRICE_CONTEXT = CONTEXTS[1]
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
NAMES = [stream.name for stream in STREAMS]


@dataclass
class Webhook:
    """What was posted to a server, which refuses so many times first, and always what has `refused` in it. Where it
    hangs, it takes a message and does not answer."""

    address: str = ""
    texts: list[str] = field(default_factory=list)
    refuse: int = 0
    refused: str = "\0"
    hangs: bool = False
    end: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    here = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            text = json.loads(body)["text"]
            here.refuse -= 1
            refused = here.refuse >= 0 or here.refused in text
            if here.hangs:
                here.end.wait(30)
            if not refused:
                here.texts.append(text)
            self.send_response(503 if refused else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        here.address = f"http://127.0.0.1:{server.server_port}/secret-path"
        yield here
        here.end.set()
        server.shutdown()
        thread.join()


def verdict(
    instance: dg.DagsterInstance, name: str, passed: bool, said: str = "as it should be", stream: str = "temperature"
) -> None:
    instance.report_runless_asset_event(CheckResult(name, passed, said).evaluation(dg.AssetKey(stream)))


class Ticks:
    """The sensor on an instance of its own, its cursor kept from tick to tick."""

    def __init__(self, instance: dg.DagsterInstance, address: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.instance, self._cursor = instance, None
        self._sensor = alert_sensor(CONTEXTS, address, answer_seconds)

    def __call__(self) -> None:
        context = dg.build_sensor_context(instance=self.instance, cursor=self._cursor)
        self._sensor.evaluate_tick(context)
        self._cursor = context.cursor


def test_a_change_is_posted_once(webhook: Webhook) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        tick = Ticks(instance, webhook.address)
        verdict(instance, NO_LOSS, True)
        tick()
        assert webhook.texts == []
        verdict(instance, NO_LOSS, False, "offsets 3 to 7 are gone")
        tick()
        verdict(instance, NO_LOSS, False, "offsets 3 to 7 are gone")
        tick()
        assert webhook.texts == [f"temperature is failing: {NO_LOSS}: offsets 3 to 7 are gone"]
        verdict(instance, UP_TO_DATE, False, "the table is 400 s behind")
        verdict(instance, NO_LOSS, True)
        tick()
        assert webhook.texts[1:] == [
            f"temperature is failing: {UP_TO_DATE}: the table is 400 s behind",
            f"temperature has recovered: {NO_LOSS}; still failing: {UP_TO_DATE}",
        ]
        verdict(instance, UP_TO_DATE, True)
        tick()
        tick()
        assert webhook.texts[3:] == [f"temperature has recovered: {UP_TO_DATE}"]


def test_a_failed_run_is_posted_with_the_kind_of_its_error(webhook: Webhook) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions(STREAMS, load_settings(NAMES, {})).resolve_job_def("drain_price")
        tick = Ticks(instance, webhook.address)
        run = instance.create_run_for_job(job, tags={tags.ENDED: "failed:SchemaMismatch"})
        instance.report_run_failed(run)
        tick()
        tick()
        assert webhook.texts == [f"price is failing: run: run {run.run_id[:8]} failed: SchemaMismatch"]


def test_a_server_that_refuses_for_a_moment_is_asked_again(webhook: Webhook) -> None:
    webhook.refuse = 2
    with dg.DagsterInstance.ephemeral() as instance:
        verdict(instance, NO_LOSS, False)
        Ticks(instance, webhook.address)()
    assert len(webhook.texts) == 1


def test_what_could_not_be_posted_is_posted_by_a_later_tick(webhook: Webhook) -> None:
    webhook.refuse = 1000
    with dg.DagsterInstance.ephemeral() as instance:
        tick = Ticks(instance, webhook.address)
        verdict(instance, NO_LOSS, False)
        with pytest.raises(dg.Failure, match="ALERT_WEBHOOK_URL cannot be posted to") as failed:
            tick()
        assert "secret-path" not in str(failed.value.description)
        webhook.refuse = 0
        tick()
    assert len(webhook.texts) == 1


def test_what_was_posted_is_not_posted_again_where_the_next_post_fails(webhook: Webhook) -> None:
    webhook.refused = "temperature"
    with dg.DagsterInstance.ephemeral() as instance:
        tick = Ticks(instance, webhook.address)
        for name in NAMES:
            verdict(instance, NO_LOSS, False, stream=name)
        tick()
        with pytest.raises(dg.Failure, match="ALERT_WEBHOOK_URL cannot be posted to"):
            tick()
        assert [text.split()[0] for text in webhook.texts] == ["price"]
        webhook.refused = "\0"
        tick()
        assert [text.split()[0] for text in webhook.texts] == ["price", "temperature"]


def test_a_server_that_hangs_does_not_hold_the_tick(webhook: Webhook) -> None:
    webhook.hangs = True
    with dg.DagsterInstance.ephemeral() as instance:
        tick = Ticks(instance, webhook.address, answer_seconds=0.2)
        verdict(instance, NO_LOSS, False)
        started_at = time.monotonic()
        with pytest.raises(dg.Failure, match="ALERT_WEBHOOK_URL cannot be posted to"):
            tick()
        assert time.monotonic() - started_at < 20
        webhook.hangs = False
        tick()
    assert webhook.texts[-1].startswith("temperature is failing")


class TestShards:
    """Each has its own newest run."""

    def ended(self, instance: dg.DagsterInstance, status: dg.DagsterRunStatus, shard: str | None) -> dg.DagsterRun:
        found = {tags.ENDED: "failed:SchemaMismatch"} if shard is None else {tags.SHARD: shard}
        return create_run_for_test(instance, "drain_price", status=status, tags=found)

    def found(self, instance: dg.DagsterInstance) -> set[str]:
        return set(failing(instance, PRICE_CONTEXT))

    def test_one_that_fails_is_not_hidden_by_another(self) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            self.ended(instance, FAILURE, "0/2")
            for _ in range(RECENT + 1):
                self.ended(instance, SUCCESS, "1/2")
            assert self.found(instance) == {"run of shard 0/2"}
            self.ended(instance, SUCCESS, "0/2")
            assert self.found(instance) == set()

    def test_those_of_another_number_of_shards_do_not_count(self) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            self.ended(instance, FAILURE, "1/2")
            self.ended(instance, SUCCESS, "0/1")
            assert self.found(instance) == set()

    def test_a_run_by_hand_counts_while_it_is_the_newest_or_went_well(self) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            self.ended(instance, FAILURE, "0/2")
            self.ended(instance, FAILURE, None)
            assert self.found(instance) == {"run"}
            self.ended(instance, SUCCESS, "1/2")
            assert self.found(instance) == {"run of shard 0/2"}
            self.ended(instance, SUCCESS, None)
            self.ended(instance, SUCCESS, "1/2")
            assert self.found(instance) == set()


def test_a_run_that_failed_for_other_streams_is_no_failure_of_this_stream() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run_tags = {tags.SHARD: "0/1", tags.ENDED: "failed:DataLoss", tags.FAILED_STREAMS: "temperature"}
        create_run_for_test(instance, "drain_price", status=dg.DagsterRunStatus.FAILURE, tags=run_tags)
        assert failing(instance, PRICE_CONTEXT) == {}
        own_failure = run_tags | {tags.FAILED_STREAMS: "price,temperature"}
        create_run_for_test(instance, "drain_price", status=dg.DagsterRunStatus.FAILURE, tags=own_failure)
        assert list(failing(instance, PRICE_CONTEXT)) == ["run"]


def test_a_failed_run_is_told_with_the_line_it_failed_with() -> None:
    away = {"DATABASE_URL": "postgresql://x@127.0.0.1:9/x", "RETRY_SECONDS": "0"}
    job = build_definitions(STREAMS, load_settings(NAMES, away)).resolve_job_def("drain_price")
    with dg.DagsterInstance.ephemeral() as instance:
        found = {tags.STREAM: "price", tags.SHARD: "0/1"}
        result = job.execute_in_process(instance=instance, tags=found, raise_on_error=False)
        line = failure(result)
        assert "127.0.0.1:9" in line
        said = failing(instance, PRICE_CONTEXT)["run"]
    assert said == f"run {result.run_id[:8]} failed: DatabaseUnavailable: {line}"


def test_by_hand_each_stream_has_its_own_line() -> None:
    def drain(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def fail() -> None:
            raise dg.Failure(description=f"{name} cannot")

        return fail

    job = dg.Definitions(assets=[drain(name) for name in NAMES]).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        found = {tags.STREAM: "price", **{f"{tags.ENDED}/{name}": "failed:DataLoss" for name in NAMES}}
        run_id = job.execute_in_process(instance=instance, tags=found, raise_on_error=False).run_id
        for context in CONTEXTS:
            line = f"run {run_id[:8]} failed: DataLoss: {context.stream.name} cannot"
            assert failing(instance, context) == {"run by hand": line}


def test_of_a_run_that_died_it_is_told_who_said_so() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = create_run_for_test(instance, "drain_price", status=dg.DagsterRunStatus.STARTED)
        instance.report_run_failed(run, "The run has no session with PostgreSQL.")
        said = failing(instance, PRICE_CONTEXT)["run"]
    assert said == f"run {run.run_id[:8]} failed: The run has no session with PostgreSQL."


def test_one_by_hand_is_told_until_a_run_of_the_stream_goes_well() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        found = {tags.STREAM: "temperature", f"{tags.ENDED}/price": "failed:DataLoss"}
        run = create_run_for_test(instance, "__ASSET_JOB", status=FAILURE, tags=found)
        create_run_for_test(instance, "__ASSET_JOB", status=FAILURE, tags={"somebody": "else"})
        said = {"run by hand": f"run {run.run_id[:8]} failed: DataLoss"}
        assert failing(instance, PRICE_CONTEXT) == said
        create_run_for_test(instance, "drain_price", status=SUCCESS, tags={tags.SHARD: "0/1"})
        assert failing(instance, PRICE_CONTEXT) == {}


@pytest.mark.parametrize("ended", ["superseded", "surplus", "signal"])
def test_runs_that_end_again_and_again_without_a_row_are_told(ended: str) -> None:
    """Each of them is SUCCESS in Dagster."""
    with dg.DagsterInstance.ephemeral() as instance:

        def end(why: str, rows: str, shard: str = "0/1") -> dg.DagsterRun:
            found = {tags.SHARD: shard, tags.ENDED: why, tags.ROWS: rows}
            return create_run_for_test(instance, "drain_price", status=SUCCESS, tags=found)

        for _ in range(2):
            end(ended, "0")
        assert failing(instance, PRICE_CONTEXT) == {}
        run = end(ended, "0")
        said = f"run {run.run_id[:8]} ended {ended} without a row, and so did the 2 runs before it"
        assert failing(instance, PRICE_CONTEXT) == {"run": said}
        end(ended, "5")
        assert failing(instance, PRICE_CONTEXT) == {}
        end("caught-up", "0")
        assert failing(instance, PRICE_CONTEXT) == {}


def test_a_job_that_failed_is_told_until_it_goes_well(webhook: Webhook) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        tick = Ticks(instance, webhook.address)
        ours = {tags.JOB: "redrive_dead_letters"}
        run = create_run_for_test(instance, "redrive_dead_letters", status=FAILURE, tags=ours)
        tick()
        create_run_for_test(instance, "redrive_dead_letters", status=SUCCESS)  # of another project
        tick()
        create_run_for_test(instance, "redrive_dead_letters", status=SUCCESS, tags=ours)
        create_run_for_test(instance, "redrive_dead_letters", status=FAILURE)  # of another project
        tick()
    assert webhook.texts == [
        f"job redrive_dead_letters is failing: run: run {run.run_id[:8]} failed: see its log",
        "job redrive_dead_letters has recovered: run",
    ]


def test_nothing_to_say_about_what_stays_as_it_is() -> None:
    assert messages({"a": {"run": "x"}}, {"a": {"run": "y"}}) == []


def test_it_is_there_only_where_an_address_is_set_and_the_address_is_secret() -> None:
    assert SENSOR not in {sensor.name for sensor in build_definitions(STREAMS, load_settings(NAMES, {})).sensors or []}
    settings = load_settings(NAMES, {"ALERT_WEBHOOK_URL": "https://hooks.example.org/T0/secret"})
    assert SENSOR in {sensor.name for sensor in build_definitions(STREAMS, settings).sensors or []}
    assert not any("secret" in row.value for row in describe(settings))
    with pytest.raises(SettingsError, match="ALERT_WEBHOOK_URL must be") as refused:
        load_settings(NAMES, {"ALERT_WEBHOOK_URL": "hooks.example.org/secret"})
    assert "secret" not in str(refused.value)

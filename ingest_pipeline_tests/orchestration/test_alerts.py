"""Alerts: what is posted, when, to a real HTTP server; and that nothing is lost while it does not answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.alerts import SENSOR, alert_sensor, messages
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.orchestration.checks import NO_LOSS, UP_TO_DATE, Verdict
from ingest_pipeline.settings import describe, load_settings
from ingest_pipeline.streams import STREAMS

NAMES = [stream.name for stream in STREAMS]


@dataclass
class Webhook:
    """What was posted to a server, which refuses so many times first."""

    address: str = ""
    texts: list[str] = field(default_factory=list)
    refuse: int = 0


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    here = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            here.refuse -= 1
            if here.refuse < 0:
                here.texts.append(json.loads(body)["text"])
            self.send_response(503 if here.refuse >= 0 else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        here.address = f"http://127.0.0.1:{server.server_port}/secret-path"
        yield here
        server.shutdown()
        thread.join()


def verdict(instance: dg.DagsterInstance, name: str, passed: bool, said: str = "as it should be") -> None:
    instance.report_runless_asset_event(Verdict(name, passed, said).evaluation(dg.AssetKey("temperature")))


class Ticks:
    """The sensor on an instance of its own, its cursor kept from tick to tick."""

    def __init__(self, instance: dg.DagsterInstance, address: str) -> None:
        self.instance, self._sensor, self._cursor = instance, alert_sensor(STREAMS, address), None

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

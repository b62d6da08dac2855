"""`ingest metrics`: an endpoint for Prometheus and for probes."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click

from ..core.errors import IngestError, SettingsError
from ..settings.streams import load_streams
from .main import context_of, open_clients
from .status import sensor_reasons

if TYPE_CHECKING:
    from ..operations.stream_context import StreamContext

_LOOK_SECONDS = 5.0


class _Server(ThreadingMixIn, WSGIServer):
    """A probe does not wait for a slow scrape."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes every few seconds are no news."""


def _post_alerts(contexts: Sequence[StreamContext], webhook: str) -> None:
    from ..operations.alerts import Alerts, Memory

    alerts = Alerts(contexts, webhook, name=f"metrics {uuid.uuid4().hex[:8]}", by_default=False)
    memory = Memory()
    while True:
        try:
            if (refusal := alerts.look(memory, sensor_reasons).refusal) is not None:
                click.echo(refusal, err=True)
        except IngestError as error:
            click.echo(error.message, err=True)
        time.sleep(_LOOK_SECONDS)


@click.command()
@click.option("--port", default=9464, show_default=True, type=click.IntRange(0, 65535), help="0 for any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 to be scraped from elsewhere.")
@click.option(
    "--alerts",
    "posts_alerts",
    is_flag=True,
    help="Post to ALERT_WEBHOOK_URL while the sensor ingest_alerts does not, so alerts outlive Dagster's daemon.",
)
def metrics(port: int, host: str, posts_alerts: bool) -> None:
    """Serve /metrics for Prometheus, /status as JSON and /healthz for probes, until Ctrl-C.

    Every request reads ledger and brokers, so no run has to be alive.

    Example: ingest metrics --port 9464
    """
    from ..operations.metrics import application

    contexts = [context_of(stream) for stream in load_streams()]
    webhook = open_clients().settings.webhook
    if posts_alerts and webhook is None:
        raise SettingsError("--alerts needs ALERT_WEBHOOK_URL")
    served = application(contexts, sensor_reasons)
    try:
        server = make_server(host, port, served, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        raise SettingsError(f"cannot serve on {host}:{port}: {error.strerror}. Try another --port") from error
    with server:
        if posts_alerts and webhook is not None:
            threading.Thread(target=_post_alerts, args=(contexts, webhook), daemon=True).start()
        click.echo(f"metrics at http://{host}:{server.server_port}/metrics")
        with suppress(KeyboardInterrupt):
            server.serve_forever()

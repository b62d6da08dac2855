"""`ingest metrics`: an endpoint for Prometheus and for probes."""

from __future__ import annotations

from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click

from ..core.errors import SettingsError
from ..settings.streams import load_streams
from .main import context_of


class _Server(ThreadingMixIn, WSGIServer):
    """A probe does not wait for a slow scrape."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes every few seconds are no news."""


@click.command()
@click.option("--port", default=9464, show_default=True, type=click.IntRange(0, 65535), help="0 for any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 to be scraped from elsewhere.")
def metrics(port: int, host: str) -> None:
    """Serve /metrics for Prometheus, /status as JSON and /healthz for probes, until Ctrl-C.

    Every request reads ledger and brokers, so no run has to be alive.

    Example: ingest metrics --port 9464
    """
    from ..operations.metrics import application

    contexts = [context_of(stream) for stream in load_streams()]
    try:
        server = make_server(host, port, application(contexts), server_class=_Server, handler_class=_Handler)
    except OSError as error:
        raise SettingsError(f"cannot serve on {host}:{port}: {error.strerror}. Try another --port") from error
    with server:
        click.echo(f"metrics at http://{host}:{server.server_port}/metrics")
        with suppress(KeyboardInterrupt):
            server.serve_forever()

"""The proxy's verbs, as a client of an echo server sees them."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ingest_pipeline.local.server import HOST
from ingest_pipeline_tests.servers.proxy import TcpProxy
from ingest_pipeline_tests.waiting import wait_for

SILENCE_SECONDS = 0.3


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while piece := self.request.recv(4096):
                self.request.sendall(piece)
        except ConnectionError:
            self.server.resets.append(self.client_address[1])  # type: ignore[attr-defined]


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), Echo)
        self.resets: list[int] = []


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: EchoServer) -> Iterator[TcpProxy]:
    with TcpProxy(echo.server_address[1]) as made:
        yield made


def dial(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=10)


def echoed(client: socket.socket, sent: bytes) -> bytes:
    client.sendall(sent)
    return received(client, len(sent))


def received(client: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (piece := client.recv(4096)):
        got += piece
    return got


def silent(client: socket.socket) -> bool:
    client.settimeout(SILENCE_SECONDS)
    try:
        return client.recv(1) is None
    except TimeoutError:
        return True
    finally:
        client.settimeout(10)


def test_it_passes_bytes_and_the_end_of_either_side(proxy: TcpProxy) -> None:
    with dial(proxy) as client:
        sent = bytes(range(256)) * 1000
        threading.Thread(target=client.sendall, args=(sent,)).start()
        assert received(client, len(sent)) == sent
        assert len(proxy.links()) == 1
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_latency_delays_each_way(proxy: TcpProxy) -> None:
    with dial(proxy) as client:
        proxy.latency(0.2)
        started_at = time.monotonic()
        assert echoed(client, b"late") == b"late"
        assert time.monotonic() - started_at >= 0.4
        proxy.let_pass()
        assert echoed(client, b"again") == b"again"


def test_a_black_hole_keeps_links_and_what_was_sent(proxy: TcpProxy) -> None:
    with dial(proxy) as before:
        assert echoed(before, b"a") == b"a"
        proxy.black_hole()
        with dial(proxy) as during:
            for client in (before, during):
                client.sendall(b"late")
                assert silent(client)
            proxy.let_pass()
            for client in (before, during):
                assert received(client, 4) == b"late"


def test_a_black_hole_of_one_link_leaves_the_others(proxy: TcpProxy) -> None:
    with dial(proxy) as first:
        assert echoed(first, b"a") == b"a"
        proxy.black_hole(proxy.links())
        with dial(proxy) as second:
            assert echoed(second, b"passes") == b"passes"
            first.sendall(b"held")
            assert silent(first)
            proxy.let_pass()
            assert received(first, 4) == b"held"


def test_reset_reaches_both_sides(proxy: TcpProxy, echo: EchoServer) -> None:
    with dial(proxy) as first, ExitStack() as cleanup:
        assert echoed(first, b"a") == b"a"
        (port,) = proxy.links()
        second = cleanup.enter_context(dial(proxy))
        assert echoed(second, b"b") == b"b"
        proxy.reset({port})
        with pytest.raises(ConnectionResetError):
            first.recv(1)
        assert echoed(second, b"c") == b"c"
    wait_for("the reset", lambda: echo.resets == [port])


def test_without_a_server_the_client_is_reset() -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        with TcpProxy(closed.getsockname()[1]) as proxy, pytest.raises(ConnectionResetError), dial(proxy) as client:
            client.recv(1)

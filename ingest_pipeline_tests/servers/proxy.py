"""A TCP proxy on 127.0.0.1 that passes, delays, swallows or resets traffic between client and server.

A link is identified by the proxy's local port towards the server. PostgreSQL shows this port as `client_port`.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Self, TypeVar

from ingest_pipeline.local.server import HOST

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close discards what is unsent and sends RST
_LOST = (ConnectionError, TimeoutError, OSError)
Result = TypeVar("Result")


class _Link:
    """A client's connection, the proxy's connection to the server, and whether bytes pass."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter, open_: bool) -> None:
        self.sides = (client, server)
        self.port: int = server.get_extra_info("sockname")[1]
        self.passing = asyncio.Event()
        if open_:
            self.passing.set()

    def reset(self) -> None:
        for writer in self.sides:
            _reset(writer)


class TcpProxy:
    """Listens on `port` and forwards to a server, in a thread of its own. Methods are thread-safe and have taken effect
    on return.
    """

    def __init__(self, target_port: int, target_host: str = HOST) -> None:
        self._target_port, self._target_host = target_port, target_host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._links: dict[int, _Link] = {}
        self._delay_seconds = 0.0
        self._new_links_pass = True

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, HOST, 0), self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def links(self) -> set[int]:
        """The ports of the connected links."""
        return self._call(lambda: set(self._links))

    def let_pass(self) -> None:
        """End delays and black holes. Swallowed bytes arrive now, late and in order."""
        self._call(lambda: self._set(0.0, True, None))

    def latency(self, seconds: float) -> None:
        """Pass everything, each piece delayed in both directions."""
        self._call(lambda: self._set(seconds, True, None))

    def black_hole(self, ports: Collection[int] | None = None) -> None:
        """Keep links connected but pass nothing, not even their end. None selects all present and future links."""
        self._call(lambda: self._set(self._delay_seconds, self._new_links_pass and ports is not None, ports))

    def reset(self, ports: Collection[int] | None = None) -> None:
        """Reset links on both sides by RST. None selects all links."""
        self._call(lambda: [link.reset() for link in self._chosen(ports)])

    def _chosen(self, ports: Collection[int] | None) -> list[_Link]:
        return [link for port, link in self._links.items() if ports is None or port in ports]

    def _set(self, delay_seconds: float, new_links_pass: bool, held: Collection[int] | None) -> None:
        self._delay_seconds, self._new_links_pass = delay_seconds, new_links_pass
        for link in self._chosen(held):
            if held is None and new_links_pass:
                link.passing.set()
            else:
                link.passing.clear()

    def _call(self, do: Callable[[], Result]) -> Result:
        async def call() -> Result:
            return do()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            server_reader, server = await asyncio.open_connection(self._target_host, self._target_port)
        except _LOST:
            _reset(client)
            return
        link = _Link(client, server, self._new_links_pass)
        self._links[link.port] = link
        try:
            await asyncio.gather(self._pump(link, client_reader, server), self._pump(link, server_reader, client))
        except (*_LOST, asyncio.CancelledError):  # only `_end` cancels, and Python 3.11 would log it
            link.reset()
        finally:
            del self._links[link.port]
            for writer in link.sides:
                writer.close()

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            piece = await reader.read(_CHUNK)
            await asyncio.sleep(self._delay_seconds)
            await link.passing.wait()
            if not piece:
                writer.write_eof()
                return
            writer.write(piece)
            await writer.drain()

    async def _end(self) -> None:
        self._server.close()
        for link in list(self._links.values()):
            link.passing.set()
            link.reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # the other side was quicker
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()

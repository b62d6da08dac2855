"""A server that takes the messages of alerts."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


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


@contextmanager
def serving_webhook() -> Iterator[Webhook]:
    bench = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            text = json.loads(body)["text"]
            bench.refuse -= 1
            refused = bench.refuse >= 0 or bench.refused in text
            if bench.hangs:
                bench.end.wait(120)
            if not refused:
                bench.texts.append(text)
            self.send_response(503 if refused else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        bench.address = f"http://127.0.0.1:{server.server_port}/secret-path"
        try:
            yield bench
        finally:
            bench.end.set()
            server.shutdown()
            thread.join()

"""A broker without Kafka: librdkafka's mock cluster in a process of its own, for the demo and quick tests.

``python -m ingest_pipeline.local.broker --topics temperature price`` prints its bootstrap address on one line
when it is ready, and lives until SIGTERM, SIGINT, the end of its standard input or of its parent. Records are
kept in memory (about 5 MB a partition, the oldest go first) and end with it. A topic that is not named comes
into being on first use. It answers what producers and consumers ask, and few admin calls: what must be proved
is proved on real Kafka.
"""

import argparse
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import IO, NoReturn, Self

from .server_process import LocalServerError, end

_READY_SECONDS = 20.0


class EmbeddedBroker:
    """The broker as a child process in a session of its own, which Ctrl-C in the terminal does not reach.

    It ends with ``stop`` or with this process, however this process ends. A stopped broker that is started
    again is a new one: other port, no records.
    """

    def __init__(self, topics: Sequence[str], partitions: int = 4) -> None:
        self.topics = tuple(topics)
        self.partitions = partitions
        self._process: subprocess.Popen[bytes] | None = None
        self._bootstrap_servers: str | None = None

    def __repr__(self) -> str:
        return f"EmbeddedBroker({list(self.topics)!r}, bootstrap_servers={self._bootstrap_servers!r})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The broker's process id. Raises LocalServerError when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise LocalServerError("the embedded broker does not run")
        return self._process.pid

    @property
    def bootstrap_servers(self) -> str:
        """``127.0.0.1:port`` of the running broker. Raises LocalServerError before the start."""
        if self._bootstrap_servers is None:
            raise LocalServerError("the embedded broker was not started yet")
        return self._bootstrap_servers

    def start(self) -> None:
        """Start the broker. On return every topic exists and has no records. Does nothing when it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        command = [
            sys.executable,
            "-m",
            __name__,
            "--partitions",
            str(self.partitions),
            "--topics",
            *self.topics,
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        try:
            self._bootstrap_servers = _first_line(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the broker. On return its process is gone. Does nothing when it does not run."""
        if self._process is None:
            return
        end(self._process, signal.SIGTERM, timeout_seconds)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process = None
        self._bootstrap_servers = None


def _first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], _READY_SECONDS)[0]:
        raise LocalServerError(f"the embedded broker was not ready in {_READY_SECONDS:g} s")
    line = process.stdout.readline().decode().strip()
    if not line:
        raise LocalServerError("the embedded broker ended at its start; it says why on standard error")
    return line


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _wait_for_the_end(stdin: IO[str]) -> None:
    """Return when standard input ends or the parent is another one: whoever started us is gone."""
    parent = os.getppid()
    while os.getppid() == parent:
        if select.select([stdin], [], [], 1.0)[0] and not os.read(stdin.fileno(), 4096):
            return


def main() -> None:
    """Run a broker with the topics named on the command line until it is told to end."""
    from .mock_cluster import mock_cluster

    parser = argparse.ArgumentParser(prog="python -m ingest_pipeline.local.broker")
    parser.add_argument("--topics", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--partitions", type=int, default=4)
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    with mock_cluster(wanted.topics, wanted.partitions) as bootstrap_servers:
        print(bootstrap_servers, flush=True)
        _wait_for_the_end(sys.stdin)


if __name__ == "__main__":
    main()

"""A broker without Kafka: librdkafka's mock cluster in a process of its own, for the demo and quick tests.

``python -m ingest_pipeline.local.broker --topics temperature price`` prints its bootstrap address when ready,
and runs until a signal comes. Records are kept in memory (about 5 MB a partition, the oldest go first) and end with the
process. Unnamed topics are created on first use. The broker answers producers, consumers and few admin calls. The
guarantees are tested on a real Kafka.
"""

import argparse
import select
import signal
import sys
from collections.abc import Sequence

from .child_process import Child
from .server import LocalServer, LocalServerError

_READY_SECONDS = 20.0


class EmbeddedBroker(LocalServer):
    """The broker as a child process. ``stop`` or any end of this process ends the broker.

    After a restart the broker has another port and no records.
    """

    def __init__(self, topics: Sequence[str], partitions: int = 4, held_fds: Sequence[int] = ()) -> None:
        self.topics, self.partitions = tuple(topics), partitions
        self._held_fds = held_fds
        self._child: Child | None = None
        self._bootstrap_servers: str | None = None

    @property
    def pid(self) -> int:
        """The broker's process id. Raises LocalServerError when the broker does not run."""
        if self._child is None or not self._child.runs:
            raise LocalServerError("the embedded broker does not run")
        return self._child.pid

    @property
    def bootstrap_servers(self) -> str:
        """``127.0.0.1:port`` of the running broker. Raises LocalServerError before the start."""
        if self._bootstrap_servers is None:
            raise LocalServerError("the embedded broker was not started yet")
        return self._bootstrap_servers

    def start(self) -> None:
        """Start the broker. On return every topic exists and has no records. Does nothing while the broker runs."""
        if self._child is not None and self._child.runs:
            return
        command = [sys.executable, "-m", __name__, "--partitions", str(self.partitions), "--topics", *self.topics]
        self._child = Child("the embedded broker", command, None, end_signal=signal.SIGTERM, held_fds=self._held_fds)
        try:
            self._bootstrap_servers = _first_line(self._child)
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout_seconds: float = 5.0) -> None:
        if self._child is not None:
            self._child.stop(grace_seconds=timeout_seconds)
        self._child = self._bootstrap_servers = None


def _first_line(child: Child) -> str:
    if not select.select([child.stdout], [], [], _READY_SECONDS)[0]:
        raise LocalServerError(f"the embedded broker was not ready in {_READY_SECONDS:g} s")
    line = child.stdout.readline().decode().strip()
    if not line:
        raise LocalServerError("the embedded broker ended at its start: the reason is on standard error")
    return line


def main() -> None:
    from .mock_cluster import mock_cluster

    parser = argparse.ArgumentParser(prog="python -m ingest_pipeline.local.broker")
    parser.add_argument("--topics", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--partitions", type=int, default=4)
    arguments = parser.parse_args()
    with mock_cluster(arguments.topics, arguments.partitions) as bootstrap_servers:
        print(bootstrap_servers, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()

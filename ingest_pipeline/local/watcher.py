"""Ends a child process after its parent's end, also after SIGKILL or a crash in C code.

``python -m ingest_pipeline.local.watcher PID SIGNAL`` waits for the end of its standard input. Only the parent holds
the pipe's other end, and the system closes the pipe after any end of the parent.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence

from .process_family import Family

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 15.0


class Watcher:
    """Watches the process ``pid``, a session leader, for this process.

    Args:
        sign: the first signal to ``pid``, see `Family.end`.
        held_fds: file descriptors to hold open until the end of the watched family, for example a folder's lock.
    """

    def __init__(self, pid: int, sign: signal.Signals, held_fds: Sequence[int]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ingest_pipeline.local.watcher", str(pid), sign.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=held_fds,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End the watch. The watched process lives on."""
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Watch the process of the command line."""
    pid, sign = sys.argv[1:]
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    family = Family(int(pid))
    sys.stdin.read()
    family.end(signal.Signals[sign], GRACE_SECONDS)


if __name__ == "__main__":
    main()

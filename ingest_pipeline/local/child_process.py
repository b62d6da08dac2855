"""Child processes that end with their parent, also after SIGKILL.

Every child leads its own session. Ctrl-C in the terminal reaches only the parent, and the parent ends its children in
order. When the parent is killed, a `Watcher` ends the children.
"""

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Self

from .process_family import Family
from .server import LocalServerError
from .watcher import ENDING, GRACE_SECONDS, Watcher

_POLL_SECONDS = 0.05
_CAUSE_LINES = 200
_EXCEPTION = re.compile(r"[\w.]*(Error|Exception): ")


class StopSignals:
    """Counts SIGINT, SIGTERM and SIGHUP while entered, instead of ending the process.

    Ignored signals count too, because a shell starts background jobs with SIGINT ignored. Enter on the main thread.
    """

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._add) for number in ENDING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def wait(self, seconds: float) -> bool:
        """Wait for `seconds` or a signal. Whether a signal has come."""
        deadline = time.monotonic() + seconds
        while self.count == 0 and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_SECONDS))
        return self.count > 0

    def _add(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


@contextmanager
def _default_interrupt() -> Iterator[None]:
    """Start children with the default action for SIGINT, also where this process ignores SIGINT.

    A child inherits an ignored signal, but not a handler. Does nothing off the main thread: Python sets no handlers.
    """
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class Child:
    """A program, run from construction to `stop`.

    Args:
        log_path: gets the program's output. With None, `stdout` has its standard output and this process's standard
            error its errors.
        end_signal: the program's first signal at its end.
        held_fds: stay open until the program has ended, even when this process is killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path | None,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        end_signal: signal.Signals = signal.SIGINT,
        held_fds: Sequence[int] = (),
    ) -> None:
        self.name, self.log_path, self._end_signal = name, log_path, end_signal
        with ExitStack() as stack:
            log = None if log_path is None else stack.enter_context(log_path.open("ab"))
            stack.enter_context(_default_interrupt())
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log or subprocess.PIPE,
                stderr=log,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
            self._watcher = Watcher(self.pid, end_signal, held_fds)
        self.family = Family(self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    @property
    def stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def check(self) -> None:
        """Raise LocalServerError, with the cause by the log, when the program has ended."""
        if not self.runs:
            output = "" if self.log_path is None else f", see {self.log_path}: {_cause(self.log_path)}"
            raise LocalServerError(f"{self.name} ended with code {self._process.returncode}{output}")

    def stop(
        self, sign: signal.Signals | None = None, grace_seconds: float = GRACE_SECONDS, left_seconds: float = 8.0
    ) -> None:
        """End the program and its family, see `Family.end`. On return the family has ended."""
        self.family.end(sign or self._end_signal, grace_seconds, left_seconds)
        self._process.communicate()
        self._watcher.dismiss()


def _cause(path: Path) -> str:
    """The last exception among the log's last lines, or the last lines, joined. Runs may log after the exception."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    exceptions = [line for line in lines[-_CAUSE_LINES:] if _EXCEPTION.match(line)]
    return exceptions[-1] if exceptions else " | ".join(lines[-3:]) or "nothing"

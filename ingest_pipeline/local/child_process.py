"""Child processes that are all gone when we are, however we go.

Each leads a session of its own, so that Ctrl-C in the terminal reaches us alone and we end them in order. A process
that watches us (`Warden`) does it in our place when we are killed.
"""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from .process_family import Family
from .server_process import LocalServerError, last_lines

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """While entered, SIGINT, SIGTERM and SIGHUP are only remembered, also where they had been ignored: the shell
    starts background jobs with SIGINT ignored. To be entered on the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        for number in _ENDING:
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        os.close(self._read)
        os.close(self._write)

    def wait(self, seconds: float) -> bool:
        """Wait that long, or until a signal comes; whether one has come, now or before."""
        if self.count == 0:
            select.select([self._read], [], [], seconds)
        return self.count > 0

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        with suppress(BlockingIOError):  # full: the waiter is awake long since
            os.write(self._write, b".")


@contextmanager
def default_interrupt() -> Iterator[None]:
    """What is started within has SIGINT at its default, even when we ignore it: an ignored signal is inherited, a
    handled one is not. Does nothing off the main thread, where handlers cannot be set."""
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
    """A program in a session of its own, its output in a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name, self.log_path = name, log_path
        with log_path.open("ab") as log, default_interrupt():
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        self.family = Family(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise LocalServerError, with the log's last lines, when the program has ended."""
        code = self._process.poll()
        if code is not None:
            said = last_lines(self.log_path) or "nothing"
            raise LocalServerError(f"{self.name} ended with code {code}, see {self.log_path}: {said}")

    def stop(self, polite: signal.Signals = signal.SIGINT, grace_seconds: float = 15.0) -> None:
        """End it; on return neither it nor anything that came of it runs."""
        self.family.end(polite, grace_seconds)
        self._process.wait()


class Warden:
    """A process that ends what it guards when we end without having released it, a SIGKILL included.

    `held` are file descriptors it keeps open as long as it lives, such as a locked folder's.
    """

    def __init__(self, held: Sequence[int] = ()) -> None:
        with default_interrupt():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ingest_pipeline.local.warden"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=tuple(held),
                start_new_session=True,
            )

    def guard(self, pid: int, polite: signal.Signals) -> None:
        """End this process and its family as `Family.end` does, the last one guarded first."""
        self._tell(f"guard {pid} {polite.name}")

    def release(self, pid: int) -> None:
        """It ended, or may live on."""
        self._tell(f"release {pid}")

    def close(self) -> None:
        """Let the warden end whatever is still guarded, and itself. On return it is gone."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, words: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{words}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise LocalServerError("the process that watches this one is gone") from None

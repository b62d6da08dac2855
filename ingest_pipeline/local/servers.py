"""The demo's folder and the two servers in it: PostgreSQL and the broker."""

import fcntl
import os
import shlex
import shutil
import signal
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .broker import EmbeddedBroker
from .child_process import Warden
from .postgres import EmbeddedPostgres
from .server_process import LocalServerError

PARTITIONS = 4


class Servers:
    """While entered, a fresh PostgreSQL and a fresh broker run; afterwards neither does, and the folder stays.

    What an earlier demo left in the folder goes when it is entered: its broker has forgotten its records, so the
    positions in its PostgreSQL would point at nothing. One demo at a time has the folder.
    """

    def __init__(self, folder: Path, topics: Sequence[str]) -> None:
        self.folder = folder
        self.postgres = EmbeddedPostgres(folder / "postgres")
        self.broker = EmbeddedBroker(topics, PARTITIONS)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            lock = self._take_folder()
            stack.callback(os.close, lock)
            self._warden = Warden([lock])
            stack.callback(self._warden.close)
            self.postgres.start()
            stack.callback(self._stop_postgres, self.postgres.pid)
            self._warden.guard(self.postgres.pid, signal.SIGINT)
            stack.callback(self.broker.stop)
            self.broker.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def kafka(self) -> dict[str, str]:
        return {"bootstrap.servers": self.broker.bootstrap_servers}

    def guard(self, pid: int) -> None:
        """End this process and its family too, before the servers, if this process is killed."""
        self._warden.guard(pid, signal.SIGINT)

    def release(self, pid: int) -> None:
        """It has ended."""
        with suppress(LocalServerError):
            self._warden.release(pid)

    def check(self) -> None:
        """Raise LocalServerError when one of the servers has ended."""
        _ = self.postgres.pid, self.broker.pid

    def write_env(self, variables: dict[str, str]) -> Path:
        """A file that a shell can source; it holds a password, so only its owner may read it."""
        path = self.folder / "env"
        text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        return path

    def _take_folder(self) -> int:
        """Lock the folder, empty it, and return the lock's file descriptor."""
        try:
            self.folder.mkdir(exist_ok=True)
            lock = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise LocalServerError(f"{self.folder} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in self.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except BlockingIOError:
            os.close(lock)
            raise LocalServerError(f"a demo runs in {self.folder}, or is about to end: end it first") from None
        except OSError as error:
            os.close(lock)
            raise LocalServerError(f"{self.folder} cannot be emptied: {error.strerror}: {error.filename}") from None
        return lock

    def _stop_postgres(self, pid: int) -> None:
        self.postgres.stop()
        self.release(pid)

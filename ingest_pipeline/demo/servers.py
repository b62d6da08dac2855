"""The demo's folder, the two servers in it, PostgreSQL and the broker, and the simulator on its own thread."""

import fcntl
import os
import shlex
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ..core.errors import IngestError
from ..local.broker import EmbeddedBroker
from ..local.postgres import EmbeddedPostgres
from ..local.server import LocalServerError
from .simulate import Plan, Tally, simulate

PARTITIONS = 4


class Servers:
    """A fresh PostgreSQL and a fresh broker while entered. Afterwards neither runs, and the folder stays.

    Entering empties the folder, because an earlier demo's broker has forgotten the records of the stored positions. A
    demo holds the folder until the last of its processes has ended.
    """

    def __init__(self, folder: Path, topics: Sequence[str]) -> None:
        self.folder, self._topics = folder, topics

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.lock = self._take_folder()
            stack.callback(os.close, self.lock)
            held = [self.lock]
            self.postgres = stack.enter_context(EmbeddedPostgres(self.folder / "postgres", held_fds=held))
            self.broker = stack.enter_context(EmbeddedBroker(self._topics, PARTITIONS, held_fds=held))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self) -> None:
        """Raise LocalServerError when a server has ended."""
        _ = self.postgres.pid, self.broker.pid

    def write_env(self, variables: dict[str, str]) -> None:
        """Write a file for a shell to source. Only the owner may read the file, because of the password."""
        path = self.folder / "env"
        path.touch(0o600, exist_ok=False)
        path.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))

    def _take_folder(self) -> int:
        """Lock and empty the folder, and return the lock's file descriptor."""
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


class Simulator:
    """Sends the plan's events from its construction until `stop`."""

    def __init__(self, kafka: Mapping[str, str], plan: Plan) -> None:
        self.tally = Tally()
        self._is_over = threading.Event()
        self._pool = ThreadPoolExecutor(1, "simulator")
        self._simulation = self._pool.submit(simulate, kafka, plan, stop=self._is_over.is_set, report=self._report)

    def stop(self) -> Tally:
        """End the simulator. On return the tally is complete. May be called again."""
        self._is_over.set()
        self._pool.shutdown()
        return self.tally

    def check(self) -> None:
        """Raise LocalServerError when the simulator has failed."""
        if self._simulation.done():
            try:
                self._simulation.result()
            except IngestError as error:
                raise LocalServerError(f"the simulator ended: {error.message}") from error

    def _report(self, tally: Tally) -> None:
        self.tally = tally

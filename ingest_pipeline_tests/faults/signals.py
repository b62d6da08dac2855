"""Signals to the processes of a run, and the holders of file locks (Linux only)."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ingest_pipeline_tests.orchestration.bench import wait_for

_LOCKS = Path("/proc/locks")


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended already."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def freeze(pid: int, storage: Path) -> None:
    """Send SIGSTOP at a moment when the process does not write to Dagster's SQLite files.

    A process frozen in such a write blocks all other writers, daemon and code server included, until it wakes up or
    ends. No run can be launched meanwhile. See "Limits" in docs/reliability.md.
    """

    def stopped() -> bool:
        send(pid, signal.SIGSTOP)
        wait_for("the process to stand still", lambda: _state(pid) in "TZ", every=0.001)
        if not any(writer == pid for writer, _ in writers(storage)):
            return True
        send(pid, signal.SIGCONT)
        return False

    wait_for("a moment between two writes", stopped, every=0.01)


def writers(folder: Path) -> Iterator[tuple[int, Path]]:
    """(pid, file) for each exclusive lock on a file below the folder. None on a machine without /proc/locks."""
    if not _LOCKS.exists():
        return
    files = {path.stat().st_ino: path for path in folder.rglob("*") if path.is_file()}
    for line in _LOCKS.read_text().splitlines():
        fields = [field for field in line.split() if field != "->"]
        if fields[1] == "POSIX" and fields[3] == "WRITE" and (inode := int(fields[5].split(":")[2])) in files:
            yield int(fields[4]), files[inode]


def _state(pid: int) -> str:
    """The kernel's state letter: T for stopped, Z for ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"

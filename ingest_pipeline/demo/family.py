"""A started process and everything that came of it, by the system's own table of processes.

A family is the session of the process that leads it, and all descendants of the members, sessions of their own
included. Once seen, a process is remembered by pid and start time, also when its parents are gone.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """A line of the table: what tells a process from a later one with its pid, and whom it belongs to."""

    pid: int
    started: str
    parent: int = field(compare=False)
    session: int = field(compare=False)


def processes() -> list[Process]:
    """Every process that runs now; those that ended and wait to be reaped are left out."""
    return list(_linux() if sys.platform == "linux" else _posix())


def _linux() -> Iterator[Process]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it ended in this moment
                # The name in parentheses may hold spaces and parentheses; see proc_pid_stat(5) for the numbers.
                words = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if words[0] not in "ZX":
                    yield Process(int(folder.name), words[19], int(words[1]), int(words[3]))


def _posix() -> Iterator[Process]:
    command = ["ps", "-axo", "pid=,ppid=,stat=,lstart="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"})
    for line in listed.stdout.splitlines():
        pid, parent, state, started = line.split(None, 3)
        with suppress(OSError):  # it ended in this moment
            if not state.startswith("Z"):
                yield Process(int(pid), started, int(parent), os.getsid(int(pid)))


class Family:
    """The family of the process `leader`, which leads a session of its own and runs now."""

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self._known: set[Process] = set()
        self.members()

    def __repr__(self) -> str:
        return f"Family({self.leader})"

    def members(self) -> set[Process]:
        """Who of the family runs now."""
        table = processes()
        found = self._known.intersection(table)
        taken_over = any(one.pid == self.leader and one not in found for one in table)
        if not (self._known and taken_over):  # else a stranger has the pid now, and a session of that number
            found |= {one for one in table if self.leader in (one.pid, one.session)}
        while True:
            pids = {one.pid for one in found}
            more = {one for one in table if one.parent in pids} - found
            if not more:
                break
            found |= more
        self._known |= found
        return found

    def send(self, sign: signal.Signals) -> bool:
        """Send a signal to every member; whether there was one."""
        found = self.members()
        for member in found:
            with suppress(ProcessLookupError):
                os.kill(member.pid, sign)
        return bool(found)

    def end(self, polite: signal.Signals, grace_seconds: float, left_seconds: float = 8.0) -> None:
        """End the family; on return none of it runs.

        1. `polite` to the leader, which may end the others in its own order, within `grace_seconds`.
        2. SIGTERM to whoever is left, within `left_seconds`: Dagster leaves its runs, and they finish a batch.
        3. SIGKILL to the rest.
        """
        if any(one.pid == self.leader for one in self.members()):
            with suppress(ProcessLookupError):
                os.kill(self.leader, polite)
            self._wait(grace_seconds, lambda: all(one.pid != self.leader for one in self.members()))
        if self.send(signal.SIGTERM):
            self._wait(left_seconds, lambda: not self.members())
        while self.send(signal.SIGKILL):
            time.sleep(_LOOK_SECONDS)

    def _wait(self, seconds: float, over: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not over():
            time.sleep(_LOOK_SECONDS)

"""A started process with all of its descendants."""

import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress

import psutil

_POLL_SECONDS = 0.05
_SCAN_SECONDS = 0.5
_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def processes() -> list[psutil.Process]:
    """Every running process, without zombies."""
    return [process for process in psutil.process_iter(["status"]) if process.info["status"] not in _ENDED]


class Family:
    """The session of the process `leader`, and every descendant of a member, also in other sessions.

    A member seen once stays a member when its parents are gone. The leader leads a session of its own and runs now.
    """

    def __init__(self, leader: int, running: Callable[[], Collection[psutil.Process]] = processes) -> None:
        self.leader = leader
        self._running = running
        self._seen: set[psutil.Process] = set()
        self.members()

    def members(self) -> set[psutil.Process]:
        running = self._running()
        members = self._seen.intersection(running)
        # The system may give the leader's old pid to a stranger, who may lead a session of that number.
        is_stranger = self._seen and any(process.pid == self.leader and process not in members for process in running)
        if not is_stranger:
            members |= {process for process in running if self.leader in (process.pid, _session(process))}
        parents = {process: _parent(process) for process in running}
        children = members
        while children:
            pids = {process.pid for process in children}
            children = {process for process, parent in parents.items() if parent in pids} - members
            members |= children
        self._seen |= members
        return members

    def send(self, sign: signal.Signals) -> bool:
        """Send a signal to every member. False without members."""
        members = self.members()
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(sign)
        return bool(members)

    def end(self, sign: signal.Signals, grace_seconds: float, left_seconds: float = 8.0) -> None:
        """End the family. On return no member runs.

        1. The leader gets `sign` and ends the others in its own order, within `grace_seconds`.
        2. The other members get SIGTERM and `left_seconds`. Dagster's runs finish a batch in this time.
        3. The rest gets SIGKILL.
        """
        for leader in self._leader():
            with suppress(psutil.NoSuchProcess):
                leader.send_signal(sign)
        self._wait(grace_seconds, self._leader)
        if self.send(signal.SIGTERM):
            self._wait(left_seconds, self.members)
        while self.send(signal.SIGKILL):
            time.sleep(_POLL_SECONDS)

    def _leader(self) -> list[psutil.Process]:
        return [member for member in self.members() if member.pid == self.leader]

    def _wait(self, seconds: float, remaining: Callable[[], Collection[psutil.Process]]) -> None:
        """Wait until `remaining` is empty. A scan of every process is slow, so most polls look at the last result."""
        deadline = time.monotonic() + seconds
        while (members := remaining()) and time.monotonic() < deadline:
            next_scan = min(deadline, time.monotonic() + _SCAN_SECONDS)
            while any(map(_runs, members)) and time.monotonic() < next_scan:
                time.sleep(_POLL_SECONDS)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() not in _ENDED
    except psutil.NoSuchProcess:
        return False


def _session(process: psutil.Process) -> int | None:
    """The number of its session. None when the process has just ended."""
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _parent(process: psutil.Process) -> int | None:
    """The pid of its parent. None when the process has just ended."""
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None

"""A started process and every process that came of it.

A family is the session of the process that leads it, and every descendant of its members, also one that has a session
of its own. A member that was seen once stays known when its parents are gone.
"""

import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress

import psutil

_LOOK_SECONDS = 0.05
_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def processes() -> list[psutil.Process]:
    """Every process that runs now. One that has ended and waits to be reaped is left out."""
    return [process for process in psutil.process_iter(["status"]) if process.info["status"] not in _ENDED]


class Family:
    """The family of the process `leader`, which leads a session of its own and runs now.

    Args:
        running: lists the system's processes.
    """

    def __init__(self, leader: int, running: Callable[[], Collection[psutil.Process]] = processes) -> None:
        self.leader = leader
        self._running = running
        self._seen: set[psutil.Process] = set()
        self.members()

    def __repr__(self) -> str:
        return f"Family({self.leader})"

    def members(self) -> set[psutil.Process]:
        """The members that run now."""
        running = self._running()
        members = self._seen.intersection(running)
        pid_taken_over = any(process.pid == self.leader and process not in members for process in running)
        if not (
            self._seen and pid_taken_over
        ):  # a stranger with the leader's old pid may lead a session of that number
            members |= {process for process in running if self.leader in (process.pid, _session(process))}
        while True:
            pids = {process.pid for process in members}
            children = {process for process in running if _parent(process) in pids} - members
            if not children:
                break
            members |= children
        self._seen |= members
        return members

    def send(self, sign: signal.Signals) -> bool:
        """Send a signal to every member. Whether there was a member."""
        members = self.members()
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(sign)
        return bool(members)

    def end(self, polite: signal.Signals, grace_seconds: float, left_seconds: float = 8.0) -> None:
        """End the family. On return none of it runs.

        1. The leader gets `polite` and ends the others in its own order, within `grace_seconds`.
        2. Whoever is left gets SIGTERM and `left_seconds`. Dagster leaves its runs behind, and they finish a batch.
        3. The rest gets SIGKILL.
        """
        if any(member.pid == self.leader for member in self.members()):
            with suppress(ProcessLookupError):
                os.kill(self.leader, polite)
            self._wait(grace_seconds, lambda: all(member.pid != self.leader for member in self.members()))
        if self.send(signal.SIGTERM):
            self._wait(left_seconds, lambda: not self.members())
        while self.send(signal.SIGKILL):
            time.sleep(_LOOK_SECONDS)

    def _wait(self, seconds: float, over: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not over():
            time.sleep(_LOOK_SECONDS)


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

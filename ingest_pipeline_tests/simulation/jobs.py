"""What runs side by side: each job is a greenlet that stops at every point where another may come between.

One thread, so an order of steps is an example that can be repeated. A job is resumed by the world only.
"""

from __future__ import annotations

from collections.abc import Callable

from greenlet import getcurrent, greenlet

from ingest_pipeline.testing import SettableClock
from ingest_pipeline_tests.simulation.watch import Watch


class Killed(BaseException):
    """The process is gone: nothing after this is executed, nothing is cleaned up but by the server."""


class Job(greenlet):
    """A process of its own: a Dagster run, an operator's command.

    Attributes:
        point: where it stands: "read", "decode", "write", "acknowledge", "sleep" and so on.
        doom: where it is to be killed, if it gets there.
        wake: until when it sleeps.
        begins_at: when its process exists; before that nothing resumes it.
        since: the model's event at which it began to read.
        lingers: the server does not notice its death at once.
        zombie: the server has given its locks away.
        waives: an operator has chosen to pass over records.
        watch: on a Dagster run, once it has begun.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__()
        self.name = name
        self.point = "begin"
        self.doom: str | None = None
        self.wake = 0.0
        self.begins_at = 0.0
        self.since = 0
        self.killed = self.lingers = self.zombie = self.mended = self.waives = False
        self.watch: Watch | None = None
        self._work = work

    def run(self) -> None:
        try:
            self.reach("begin")
            self._work()
        except Killed:
            self.killed = True

    def reach(self, point: str) -> None:
        """The doom's place?"""
        self.point = point
        if self.doom == point:
            raise Killed

    def end(self) -> None:
        """Killed where it stands."""
        if not self.dead:
            if self:
                self.throw(Killed)
            else:
                self.killed = True
                self.throw()


def current() -> Job | None:
    """The job that asks; None for the world itself."""
    found = getcurrent()
    return found if isinstance(found, Job) else None


def watched() -> Watch | None:
    """The watch on the run that asks; None for whatever is none."""
    job = current()
    return None if job is None else job.watch


def pause(point: str) -> None:
    """Let others come between, if this is a job."""
    job = current()
    if job is not None:
        job.reach(point)
        job.parent.switch()
        job.reach(point)


class SharedClock(SettableClock):
    """A job's sleep takes no time of the others': the clock moves when the sleeper is resumed."""

    def sleep(self, seconds: float) -> None:
        job = current()
        if job is None:
            super().sleep(seconds)
            return
        job.wake = self.monotonic() + max(0.0, seconds)
        pause("sleep")
        self.advance(max(0.0, job.wake - self.monotonic()))

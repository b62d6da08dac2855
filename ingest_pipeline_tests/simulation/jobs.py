"""Processes that run side by side: each one is a greenlet that stops at every point where another may interfere.

All greenlets share one thread, so an example of steps is repeatable. Only the world resumes a greenlet.
"""

from __future__ import annotations

from collections.abc import Callable

from greenlet import getcurrent, greenlet

from ingest_pipeline.testing.clock import SettableClock
from ingest_pipeline_tests.simulation.watch import Watch


class Killed(BaseException):
    """The process is gone. Only the server cleans up."""


class Job(greenlet):
    """A process, such as a Dagster run or an operator's command, or a further thread of a process.

    Attributes:
        process: the process of a thread. The job itself, unless it is a further thread.
        threads: further threads of the process.
        point: where the job stands: "read", "decode", "write", "acknowledge", "sleep" and so on.
        doom: the point where the job is killed, if the job gets there.
        wake: until when the job sleeps.
        slept: seconds that the job has slept in all.
        begins_at: when the process exists. Before that time nothing resumes the job.
        since: topic → the model's event at which the process began to read.
        lingers: the server does not notice the process's death at once.
        zombie: the server has given the process's locks away.
        waives: an operator has chosen to pass over records.
        watch: on a Dagster run, once the run has begun.
    """

    def __init__(self, name: str, work: Callable[[], None], process: Job | None = None) -> None:
        super().__init__()
        self.process = process or self
        if process is not None:
            self.parent = process.parent
            process.threads.append(self)
        self.name = name
        self.threads: list[Job] = []
        self.point = "begin"
        self.doom: str | None = None
        self.wake = self.slept = self.begins_at = 0.0
        self.since: dict[str, int] = {}
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
        """Stand at the point, and die there if it is the doom."""
        self.point = point
        if self.doom == point:
            raise Killed

    def step(self, now: float) -> None:
        """Go on to the next point. Threads that do not sleep go on, too."""
        self.switch()
        for thread in self.threads:
            if not thread.dead and not self.dead and (thread.point != "sleep" or thread.wake <= now):
                thread.switch()
        self.threads = [thread for thread in self.threads if not thread.dead]

    def end(self) -> None:
        """Die at the present point, with all threads."""
        for job in (*self.threads, self):
            if not job.dead:
                if job:
                    job.throw(Killed)
                else:
                    job.killed = True
                    job.throw()


def current() -> Job | None:
    """The process that calls, or None for the world itself."""
    caller = getcurrent()
    return caller.process if isinstance(caller, Job) else None


def is_thread() -> bool:
    """Whether a further thread of a process calls."""
    caller = getcurrent()
    return isinstance(caller, Job) and caller.process is not caller


def watched() -> Watch | None:
    """The watch on the run that calls. None for callers other than runs."""
    job = current()
    return None if job is None else job.watch


def pause(point: str) -> None:
    """Let others interfere, if a job calls."""
    caller = getcurrent()
    if isinstance(caller, Job):
        caller.reach(point)
        caller.parent.switch()
        caller.reach(point)


class SharedClock(SettableClock):
    """A job's sleep takes no time from other jobs: the clock moves when the sleeper is resumed."""

    def sleep(self, seconds: float) -> None:
        caller = getcurrent()
        if not isinstance(caller, Job):
            super().sleep(seconds)
            return
        caller.wake = self.monotonic() + max(0.0, seconds)
        pause("sleep")
        self.advance(max(0.0, caller.wake - self.monotonic()))
        caller.slept += max(0.0, seconds)

"""Lanes unable to go on for now, and when to try again."""

from collections.abc import Collection, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from .end_reasons import EndReason
from .errors import EnvironmentFault, IngestError
from .lane import Lane, Opening
from .ports import Clock

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
"""Waits between two tries. Every try in a row doubles the wait."""
SHORT_SECONDS = 5.0
"""The longest wait after a pause, for the partitions of another run, and for a busy table. A lock is usually short."""


@dataclass(slots=True)
class Waiter:
    """A lane set aside.

    Attributes:
        reason: the error, or the reason without an error, such as a pause.
        owns: the run still owns the partitions, and goes on without opening the stream again.
    """

    lane: Lane
    reason: EndReason | IngestError
    owns: bool
    retry_at: float
    opening: Future[Opening | None] | None = None


class SetAside:
    """Keeps lanes until their next try. Preparations run in the executor, and no other lane waits."""

    def __init__(self, clock: Clock, executor: Executor) -> None:
        self._clock, self._executor = clock, executor
        self._waiters: dict[str, Waiter] = {}
        self._seconds: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def add(self, lane: Lane, reason: EndReason | IngestError, owns: bool) -> None:
        longest = SHORT_SECONDS if owns or isinstance(reason, EndReason) else LONGEST_SECONDS
        seconds = min(self._seconds.get(lane.stream, FIRST_SECONDS), longest)
        self._seconds[lane.stream] = seconds * 2
        now = self._clock.monotonic()
        self._since.setdefault(lane.stream, now)
        self._waiters[lane.stream] = Waiter(lane, reason, owns, now + seconds)

    def recovered(self, lane: Lane) -> None:
        """The lane has stored a batch: its next trouble begins with the shortest wait."""
        self._seconds.pop(lane.stream, None)
        self._since.pop(lane.stream, None)

    def trouble_seconds(self, lane: Lane) -> float:
        """Seconds since the lane was first set aside after its last stored batch."""
        now = self._clock.monotonic()
        return now - self._since.get(lane.stream, now)

    def ready(self) -> Iterator[tuple[Waiter, Opening | None]]:
        """Lanes to try now with their new openings, or None where the run still owns the partitions.

        A paused lane, or a lane with a failed preparation, waits again.
        """
        now = self._clock.monotonic()
        for waiter in list(self._waiters.values()):
            if waiter.opening is None and now >= waiter.retry_at:
                if waiter.owns:
                    del self._waiters[waiter.lane.stream]
                    yield waiter, None
                    continue
                waiter.opening = self._executor.submit(waiter.lane.reopen)
            if waiter.opening is not None and waiter.opening.done():
                del self._waiters[waiter.lane.stream]
                if (opening := self._result(waiter)) is not None:
                    yield waiter, opening

    def _result(self, waiter: Waiter) -> Opening | None:
        assert waiter.opening is not None
        try:
            opening = waiter.opening.result()
        except EnvironmentFault:
            self.add(waiter.lane, waiter.reason, owns=False)
        except IngestError as error:
            self.add(waiter.lane, waiter.lane.failed(error), owns=False)
        else:
            if opening is None:
                self.add(waiter.lane, EndReason.PAUSED, owns=False)
            return opening
        return None

    @property
    def owning(self) -> Collection[Lane]:
        """Lanes with partitions still owned by the run."""
        return [waiter.lane for waiter in self._waiters.values() if waiter.owns]

    @property
    def reasons(self) -> dict[str, EndReason | IngestError]:
        """Stream → why it is set aside."""
        return {stream: waiter.reason for stream, waiter in self._waiters.items()}

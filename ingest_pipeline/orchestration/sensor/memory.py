"""What a sensor's process remembers about the streams of its job between two ticks."""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ...operations.stream_context import StreamContext
from ...operations.waiting import WaitWatch
from .runless_checks import RunlessChecks
from .topic_observation import LastLook


@dataclass(frozen=True, slots=True)
class SensorMemory:
    """Every mapping has the stream's name as its key. An empty memory reports no check and notes no wait.

    Attributes:
        looks, observed_offsets: the last looks at the topics of a job of several streams, and `Reading.offsets` then.
            They would make the cursor large.
        logged: the last logged skip reason, without its numbers.
    """

    checks: dict[str, RunlessChecks] = field(default_factory=dict)
    waits: dict[str, WaitWatch] = field(default_factory=dict)
    looks: dict[str, LastLook] = field(default_factory=dict)
    observed_offsets: dict[str, int] = field(default_factory=dict)
    logged: set[str] = field(default_factory=set)

    def log_once(self, log: logging.Logger, skip_reason: str) -> None:
        """Log the reason if the last logged one differs in more than numbers. Dagster never deletes the file that a
        tick's log takes."""
        words = re.sub(r"\d+", "", skip_reason)
        if words not in self.logged:
            self.logged.clear()
            self.logged.add(words)
            log.info(skip_reason)

    def recently_idle(self) -> bool:
        """Whether a recent tick saw no run, no lag and no failed check."""
        return bool(self.checks) and all(checks.recently_idle() for checks in self.checks.values())


def new_memory(stream_contexts: Iterable[StreamContext]) -> SensorMemory:
    memory = SensorMemory()
    for stream_context in stream_contexts:
        name, clock = stream_context.stream.name, stream_context.clients.clock
        memory.checks[name] = RunlessChecks(stream_context)
        memory.waits[name] = WaitWatch(stream_context.settings.max_delay_seconds, clock)
    return memory

"""Polls an idle topic between Dagster's 5-second sensor ticks, to notice a new record within POLL_SECONDS."""

import threading
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from dagster._core.instance.ref import InstanceRef

from ...core.ports import Clock
from ...core.record import NextOffset

Partition = TypeVar("Partition", bound=Hashable)
LOOP_SECONDS = 5.0
"""Interval of Dagster's sensor daemon (MIN_INTERVAL_LOOP_TIME in dagster/_daemon/sensor.py)."""
MAX_POLLING_SENSORS = 3
"""Sensors of a process that poll at the same time. A polling sensor holds a thread of the daemon and of the code
server, and other sensors need threads too. The daemon's random order gives every sensor its turn."""

_polling_sensors = threading.BoundedSemaphore(MAX_POLLING_SENSORS)


class IdlePoll:
    """Polls for the rest of a tick's 5 seconds, counted from the creation of this object."""

    def __init__(self, instance: InstanceRef | None, poll_seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._polls = int(LOOP_SECONDS / poll_seconds) - 1 if _has_threads(instance) else 0
        self._poll_seconds = poll_seconds
        self._began = self._clock.monotonic()

    def ends_changed(
        self, end_offsets: Callable[[], Mapping[Partition, NextOffset]], ends: Mapping[Partition, NextOffset]
    ) -> bool:
        """Asks for the ends every `poll_seconds` until an end differs. False at once where polling is not possible.

        A partition whose leader does not answer counts as unchanged.

        Raises:
            KafkaUnavailable: as `end_offsets` does.
        """
        if self._polls < 1 or not _polling_sensors.acquire(blocking=False):
            return False
        try:
            for number in range(1, self._polls + 1):
                seconds = self._began + number * self._poll_seconds - self._clock.monotonic()
                if seconds < 0:
                    continue  # a slow answer took this poll's time, and the next tick must be on time
                self._clock.sleep(seconds)
                answers = end_offsets()
                if any(answers[partition] != ends[partition] for partition in answers):
                    return True
        finally:
            _polling_sensors.release()
        return False


def _has_threads(instance: InstanceRef | None) -> bool:
    """Without threads for sensors (`sensors` in dagster.yaml) a long tick makes every other sensor wait."""
    sensors = instance.settings.get("sensors") if instance is not None else None
    if not isinstance(sensors, Mapping) or not sensors.get("use_threads"):
        return False
    return bool(sensors.get("num_workers", 2 * MAX_POLLING_SENSORS) >= 2 * MAX_POLLING_SENSORS)

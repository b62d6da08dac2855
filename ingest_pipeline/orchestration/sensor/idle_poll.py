"""Between two ticks of an idle stream: Dagster comes round every 5 s, and a record is not to wait for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from dagster._core.instance.ref import InstanceRef

from ...core.clock import SystemClock
from ...core.ports import Clock, Topic
from ...core.record import NextOffset

LOOP_SECONDS = 5.0
"""How often Dagster's daemon looks which sensors are due (MIN_INTERVAL_LOOP_TIME in dagster/_daemon/sensor.py)."""
SEATS = 3
"""Sensors of one process that keep vigil at a time: each holds a thread of the daemon and one of the code server, and
others need some. The daemon takes sensors in random order, so with more of them each has its turn."""

_seats = threading.BoundedSemaphore(SEATS)


class IdlePoll:
    """What is left of one tick's time, from the moment this is made."""

    def __init__(self, instance: InstanceRef | None, poll_seconds: float, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._looks = int(LOOP_SECONDS / poll_seconds) - 1 if _has_threads(instance) else 0
        self._poll_seconds = poll_seconds
        self._began = self._clock.monotonic()

    def sees_news(self, topic: Topic, ends: Mapping[int, NextOffset]) -> bool:
        """Whether an end moves, by a look every `poll_seconds`. False at once where no seat or no time is left.

        A partition whose leader does not answer is no news.

        Raises:
            KafkaUnavailable: as the topic does.
        """
        if self._looks < 1 or not _seats.acquire(blocking=False):
            return False
        try:
            for number in range(1, self._looks + 1):
                left = self._began + number * self._poll_seconds - self._clock.monotonic()
                if left < 0:
                    continue  # missed, by a slow answer; the next tick is not to be missed, too
                self._clock.sleep(left)
                answers = topic.end_offsets(ends.keys())
                if any(answers[partition] != ends[partition] for partition in answers):
                    return True
        finally:
            _seats.release()
        return False


def _has_threads(instance: InstanceRef | None) -> bool:
    """Without threads of its own (`sensors` in dagster.yaml) a tick that takes time makes every other sensor wait."""
    sensors = instance.settings.get("sensors") if instance is not None else None
    if not isinstance(sensors, Mapping) or not sensors.get("use_threads"):
        return False
    return bool(sensors.get("num_workers", 2 * SEATS) >= 2 * SEATS)

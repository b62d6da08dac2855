"""Ends of partitions: the client reports an offset, the ledger needs the leader epoch as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..core.errors import KafkaUnavailable, NotPermitted
from ..core.ports import Clock
from ..core.record import NextOffset
from .topic import KafkaTopic

_ASK_AGAIN_SECONDS = 5.0
"""Pause between two questions to brokers about an end. Records of other partitions wait during a question."""


class PartitionEnds:
    """Turns the client's end-of-partition events into next offsets.

    Args:
        served: partition → next offset after everything that the client has returned.
    """

    def __init__(self, topic: KafkaTopic, clock: Clock, served: Callable[[int], NextOffset]) -> None:
        self._topic = topic
        self._clock = clock
        self._served = served
        self._ask_at = 0.0
        self.pending: dict[int, int] = {}
        """Partition → reported end without a leader epoch. The client reports an end only once."""

    def resolve(self, reported: Mapping[int, int]) -> dict[int, NextOffset]:
        """Next offsets of the reported and the pending ends.

        - An end at the next offset has the epoch of the last record, or of the assigned offset.
        - An end beyond the next offset takes its epoch from the broker, and stays pending until a leader answers. The
          epochs of the last record and of the event are not used: after a leader change, both led to a false report of
          a truncated log.
        - An end that later records have passed is dropped.
        """
        ends: dict[int, NextOffset] = {}
        beyond: dict[int, int] = {}
        for partition, offset in {**self.pending, **reported}.items():
            served = self._served(partition)
            if offset == served.next_offset:
                ends[partition] = served
            elif offset > served.next_offset:
                beyond[partition] = offset
        self.pending = beyond
        if beyond and self._clock.monotonic() >= self._ask_at:
            try:
                latest = self._topic.end_offsets(beyond)
            except (KafkaUnavailable, NotPermitted):
                latest = {}
            for partition in latest:
                ends[partition] = NextOffset(beyond.pop(partition), latest[partition].leader_epoch)
            if beyond:
                self._ask_at = self._clock.monotonic() + _ASK_AGAIN_SECONDS
        return ends

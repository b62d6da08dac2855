"""Ends of partitions: the client reports an offset, the ledger needs the leader epoch as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..core.ports import Clock
from ..core.record import NextOffset
from .topics import KafkaTopics, end_of

_ASK_AGAIN_SECONDS = 5.0
"""Pause before the next question about an end whose leader did not answer."""

Partition = tuple[str, int]
"""(topic, partition)."""


@dataclass(slots=True)
class _End:
    """A reported end without a leader epoch, and the question about it."""

    offset: int
    answer: Future[Any] | None = None
    ask_at: float = 0.0


class PartitionEnds:
    """Turns the client's end-of-partition events into next offsets. Never waits for a broker.

    Args:
        served: (topic, partition) → next offset after everything that the client has returned.
    """

    def __init__(self, topics: KafkaTopics, clock: Clock, served: Callable[[Partition], NextOffset]) -> None:
        self._topics, self._clock, self._served = topics, clock, served
        self._pending: dict[Partition, _End] = {}

    @property
    def pending(self) -> bool:
        """Whether a reported end has not been returned. The client reports an end only once."""
        return bool(self._pending)

    @property
    def asked(self) -> bool:
        """Whether an answer of a broker is expected."""
        return any(end.answer is not None for end in self._pending.values())

    def forget(self, topic: str) -> None:
        self._pending = {key: end for key, end in self._pending.items() if key[0] != topic}

    def resolve(self, reported: Mapping[Partition, int]) -> dict[str, dict[int, NextOffset]]:
        """Topic → partition → next offset, of the reported and the pending ends.

        - An end at the next offset has the epoch of the last record, or of the assigned offset.
        - An end beyond the next offset takes its epoch from the broker, and stays pending until the leader answers.
          The answer is to a question that was asked after the report. The epochs of the last record and of the event
          are not used: after a leader change, both led to a false report of a truncated log.
        - An end that later records have passed is dropped.
        """
        self._pending |= {key: _End(offset) for key, offset in reported.items()}
        ends: dict[str, dict[int, NextOffset]] = {}
        for key, end in list(self._pending.items()):
            if (next_offset := self._resolved(end, self._served(key))) is not None:
                ends.setdefault(key[0], {})[key[1]] = next_offset
                del self._pending[key]
            elif end.offset < self._served(key).next_offset:
                del self._pending[key]
        self._ask()
        return ends

    def _resolved(self, end: _End, served: NextOffset) -> NextOffset | None:
        if end.offset == served.next_offset:
            return served
        if end.offset < served.next_offset or end.answer is None or not end.answer.done():
            return None
        latest, end.answer = end_of(end.answer), None
        end.ask_at = self._clock.monotonic() + _ASK_AGAIN_SECONDS
        return None if latest is None else NextOffset(end.offset, latest.leader_epoch)

    def _ask(self) -> None:
        now = self._clock.monotonic()
        unasked = {key: end for key, end in self._pending.items() if end.answer is None and now >= end.ask_at}
        if unasked:
            for key, answer in self._topics.ask_ends(unasked).items():
                unasked[key].answer = answer

"""Facts about several topics at once: identities and offsets. Creates no topic."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from ..core.errors import IngestError, KafkaUnavailable, NotPermitted, TopicMissing
from ..core.record import NextOffset, TopicIdentity, next_offset_or_none
from .admin import Admin
from .client import isolation_level
from .metadata import MIN_TIMEOUT_SECONDS, RETRY_SECONDS, Metadata

LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]
EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_TRIES = 4
"""Tries of a question about metadata within its time-out."""
_GRACE_SECONDS = 1.0
"""Once a leader has answered, the question ends this long after its start. The other leaders may be moving."""
_NO_RECORD = -1
"""The offset in an answer about a time when every record is older."""
Answers = dict[str, dict[int, NextOffset | None]]
"""Topic → partition → offset, or None where every record is older than the time. Silent partitions are left out."""


class KafkaTopics:
    """The `Topics` port. Safe for several threads.

    Every call ends at most about a second after `timeout_seconds`. Topics with an error are values, not exceptions.
    """

    def __init__(self, admin: Admin, *, timeout_seconds: float = 5.0) -> None:
        self.admin = admin
        self.metadata = Metadata(admin, timeout_seconds / _TRIES)
        self.timeout_seconds = timeout_seconds
        self._grace = min(_GRACE_SECONDS, timeout_seconds / 2)
        self.isolation = (
            IsolationLevel.READ_UNCOMMITTED
            if isolation_level(admin.kafka) == "read_uncommitted"
            else IsolationLevel.READ_COMMITTED
        )

    def deadline(self) -> float:
        return time.monotonic() + self.timeout_seconds

    def identities(self, topics: Collection[str]) -> dict[str, TopicIdentity | IngestError]:
        if not topics:
            return {}
        with self._about(topics):
            identities = self.metadata.identities(topics, self.deadline())
        self.admin.answered()
        return identities

    def end_offsets(self, partitions: Mapping[str, Collection[int]]) -> dict[str, dict[int, NextOffset]]:
        return self._answered(partitions, LATEST, self.isolation)

    def high_watermarks(self, partitions: Mapping[str, Collection[int]]) -> dict[str, dict[int, NextOffset]]:
        return self._answered(partitions, LATEST, IsolationLevel.READ_UNCOMMITTED)

    def start_offsets(self, partitions: Mapping[str, Collection[int]]) -> dict[str, dict[int, NextOffset]]:
        return self._answered(partitions, EARLIEST, self.isolation)

    def _answered(
        self, partitions: Mapping[str, Collection[int]], spec: OffsetSpec, isolation: IsolationLevel
    ) -> dict[str, dict[int, NextOffset]]:
        with self._about(partitions):
            answers, errors = self.offsets(partitions, spec, self.deadline(), isolation)
            refusals = [error for error in errors.values() if isinstance(error, NotPermitted)]
            if refusals and len(refusals) == len(partitions):
                raise refusals[0]  # more likely a refused login than a right on each topic
        return {topic: answered(offsets) for topic, offsets in answers.items()}

    @contextmanager
    def _about(self, topics: Collection[str]) -> Iterator[None]:
        """An exception about several topics names none of them, because the streams of all topics show it."""
        try:
            yield
        except IngestError as error:
            if len(topics) == 1:
                raise
            message = error.message
            for topic in topics:
                message = message.replace(f"{self.metadata.where(topic)}:", f"{self.admin.where}:", 1)
            raise type(error)(message, **error.where) from error

    def ask_ends(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Future[Any]]:
        """Ask for ends without waiting. `end_of` reads an answer."""
        client = self.admin.client()
        specs = {TopicPartition(topic, partition): LATEST for topic, partition in partitions}
        futures = client.list_offsets(specs, isolation_level=self.isolation, request_timeout=self.timeout_seconds)
        client.poll(0)  # the client hands over its log lines only here
        return {(key.topic, key.partition): future for key, future in futures.items()}

    def offsets(
        self, partitions: Mapping[str, Collection[int]], spec: OffsetSpec, deadline: float, isolation: IsolationLevel
    ) -> tuple[Answers, dict[str, IngestError]]:
        """(answers, errors by topic).

        A leader may be moving, so the question is repeated until the deadline, or until _GRACE_SECONDS after the
        question began if another partition has answered.
        """
        answers: Answers = {topic: {} for topic in partitions}
        errors: dict[str, IngestError] = {}
        if partitions and not self.admin.has_metadata:
            # A question about offsets may wait in vain for the first broker that a new client connects to.
            self.metadata.of(next(iter(partitions)), deadline)
        grace_end = min(deadline, time.monotonic() + self._grace)
        while True:
            waiting = _waiting(partitions, answers, errors)
            if waiting:
                self._ask_leaders(waiting, spec, deadline, isolation=isolation, answers=answers, errors=errors)
                waiting = _waiting(partitions, answers, errors)
            missing: dict[str, IngestError] = {}
            try:
                for topic, silent in waiting.items():
                    ends_at = max(deadline, time.monotonic() + self._grace)
                    self._check_exists(topic, silent, ends_at, missing=missing, errors=errors)
            except KafkaUnavailable:
                if not any(answers.values()):
                    raise
                return answers, errors
            if not waiting.keys() - errors.keys():
                return answers, errors
            ends_at = grace_end if missing or any(answers.values()) else deadline
            if time.monotonic() + RETRY_SECONDS > ends_at:
                return answers, errors | missing
            time.sleep(RETRY_SECONDS)

    def _check_exists(
        self,
        topic: str,
        partitions: Collection[int],
        deadline: float,
        *,
        missing: dict[str, IngestError],
        errors: dict[str, IngestError],
    ) -> None:
        """Look for silent partitions in the metadata. A broker may not know a new partition yet, so `missing` counts
        only if it lasts."""
        _, state = self.metadata.of(topic, deadline)
        if isinstance(state, KafkaUnavailable):
            return
        if isinstance(state, IngestError):
            errors[topic] = state
        elif absent := sorted(set(partitions) - state.partitions.keys()):
            missing[topic] = TopicMissing(
                f"{self.metadata.where(topic)}: there is no partition {absent[0]}", partition=absent[0]
            )

    def _ask_leaders(
        self,
        partitions: Mapping[str, Collection[int]],
        spec: OffsetSpec,
        deadline: float,
        *,
        isolation: IsolationLevel,
        answers: Answers,
        errors: dict[str, IngestError],
    ) -> None:
        """One request for all partitions. For an unreachable leader the client returns offset -1001 and no error."""
        specs = {TopicPartition(topic, p): spec for topic, numbers in partitions.items() for p in numbers}
        client = self.admin.client()
        timeout_seconds = max(MIN_TIMEOUT_SECONDS, deadline - time.monotonic())
        ends_at = time.monotonic() + timeout_seconds + 1.0
        futures = client.list_offsets(specs, isolation_level=isolation, request_timeout=timeout_seconds)
        for key, future in futures.items():
            try:
                result = future.result(max(0.0, ends_at - time.monotonic()))
            except TimeoutError:
                continue
            except KafkaException as error:
                fault = self.admin.fault(error, self.metadata.where(key.topic))
                if not isinstance(fault, (KafkaUnavailable, TopicMissing)):
                    errors[key.topic] = fault
                continue
            offset = next_offset_or_none(result.offset, result.leader_epoch)
            if offset is not None or (result.offset == _NO_RECORD and spec not in (LATEST, EARLIEST)):
                answers[key.topic][key.partition] = offset
                self.admin.answered()
        client.poll(0)


def end_of(answer: Future[Any]) -> NextOffset | None:
    """The end in a finished answer. None: the leader did not answer."""
    if answer.exception() is not None:
        return None
    result = answer.result()
    return next_offset_or_none(result.offset, result.leader_epoch)


def answered(offsets: Mapping[int, NextOffset | None]) -> dict[int, NextOffset]:
    return {partition: offset for partition, offset in offsets.items() if offset is not None}


def _waiting(
    partitions: Mapping[str, Collection[int]], answers: Answers, errors: Mapping[str, IngestError]
) -> dict[str, set[int]]:
    waiting = {topic: set(partitions[topic]) - answers[topic].keys() for topic in partitions if topic not in errors}
    return {topic: silent for topic, silent in waiting.items() if silent}

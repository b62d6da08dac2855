"""Partitions that the client no longer reads after an error, and the retries."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from confluent_kafka import IsolationLevel, KafkaError
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from ..core.background import Background
from ..core.backoff import Backoff
from ..core.errors import DataLoss, IngestError, KafkaUnavailable, NotPermitted, TopicMissing
from ..core.loss import data_loss
from ..core.ports import Clock
from ..core.record import NextOffset
from ..core.start import unanswered_words
from .errors import is_corrupt, map_error
from .partition_ends import Partition
from .topics import EARLIEST, LATEST, KafkaTopics


@dataclass(slots=True)
class _Stop:
    """A stopped partition.

    Attributes:
        fault: the error of the product. A loss and a missing partition need an answer of a broker.
        retry_at: when the partition may be read again. None: not decided yet.
    """

    error: KafkaError
    fault: Future[IngestError]
    retry_at: float | None = None


class StoppedPartitions:
    """Decides for a stopped partition between another try and an error. Never waits.

    A missing right, a silent leader and a corrupt batch are retried: the right may be granted again, and the network
    may have damaged the batch or another replica may lead soon.
    """

    def __init__(self, topics: KafkaTopics, clock: Clock, retry_seconds: float, background: Background) -> None:
        self._topics, self._clock, self._retry_seconds = topics, clock, retry_seconds
        self._background = background
        self._stops: dict[Partition, _Stop] = {}
        self._backoffs: dict[Partition, Backoff] = {}

    def __bool__(self) -> bool:
        return bool(self._stops)

    def add(self, key: Partition, error: KafkaError, next_offset: int) -> None:
        """Note an error. A partition's first error counts, because later errors may be its consequence."""
        if key not in self._stops:
            self._stops[key] = _Stop(error, self._fault(key, error, next_offset))

    @property
    def retried(self) -> bool:
        """Whether a partition has been retried and has brought neither a record nor its end since."""
        return bool(self._backoffs)

    def recovered(self, keys: Iterable[Partition]) -> None:
        """These partitions can be read again: their next error gets the full time for retries."""
        for key in keys:
            self._backoffs.pop(key, None)

    def forget(self, topic: str) -> None:
        self._stops = {key: stop for key, stop in self._stops.items() if key[0] != topic}
        self._backoffs = {key: backoff for key, backoff in self._backoffs.items() if key[0] != topic}

    def take_due(self) -> list[Partition]:
        """Partitions to read again now. They are not stopped any more."""
        now = self._clock.monotonic()
        due = [key for key, stop in self._stops.items() if stop.retry_at is not None and now >= stop.retry_at]
        for key in due:
            del self._stops[key]
        return due

    def errors(self) -> dict[str, IngestError]:
        """Topic → error, where retries do not help. Decides when the other partitions are retried."""
        errors: dict[str, IngestError] = {}
        for key, stop in self._stops.items():
            if stop.retry_at is None and stop.fault.done():
                try:
                    stop.retry_at = self._clock.monotonic() + self._next_seconds(key, stop)
                except IngestError as error:
                    errors.setdefault(key[0], error)
        return errors

    def _next_seconds(self, key: Partition, stop: _Stop) -> float:
        """How long to wait before the next try. Raises the fault when retries do not help."""
        try:
            fault = stop.fault.result()
        except (KafkaUnavailable, NotPermitted) as error:
            fault = error
        if not isinstance(fault, (NotPermitted, KafkaUnavailable)) and not is_corrupt(stop.error):
            raise fault
        if key not in self._backoffs:
            self._backoffs[key] = Backoff(self._clock, self._retry_seconds, lambda: None)
        return self._backoffs[key].next_seconds(fault)

    def _fault(self, key: Partition, error: KafkaError, next_offset: int) -> Future[IngestError]:
        where = f"{self._topics.metadata.where(key[0])}, partition {key[1]}"
        fault = map_error(error, where, partition=key[1], offset=next_offset)
        if isinstance(fault, DataLoss):
            return self._background(partial(_loss, self._topics, key, next_offset, corrupt=is_corrupt(error)))
        if isinstance(fault, TopicMissing):
            return self._background(partial(_missing, self._topics, key, fault))
        answer: Future[IngestError] = Future()
        answer.set_result(fault)
        return answer


def _missing(topics: KafkaTopics, key: Partition, fault: TopicMissing) -> IngestError:
    topic, partition = key
    identity = topics.identities([topic])[topic]
    if isinstance(identity, IngestError):
        return identity
    if partition >= identity.partitions:
        return fault
    where = f"{topics.metadata.where(topic)}, partition {partition}"
    return KafkaUnavailable(f"{where}: a broker does not know the partition yet", **fault.where)


def _loss(topics: KafkaTopics, key: Partition, offset: int, corrupt: bool) -> DataLoss | KafkaUnavailable:
    """The loss with the log's bounds. Without an answer from the leader, the bounds are unknown."""
    topic, partition = key
    where = topics.metadata.where(topic)
    low = _offset(topics, key, EARLIEST, topics.isolation)
    high = _offset(topics, key, LATEST, IsolationLevel.READ_UNCOMMITTED)
    if low is None or high is None:
        return KafkaUnavailable(f"{where}, {unanswered_words([partition])}", partition=partition, offset=offset)
    return data_loss(
        where,
        partition=partition,
        expected=offset,
        low=low.next_offset,
        high=high.next_offset,
        corrupt=corrupt,
    )


def _offset(topics: KafkaTopics, key: Partition, spec: OffsetSpec, isolation: IsolationLevel) -> NextOffset | None:
    topic, partition = key
    answers, errors = topics.offsets({topic: [partition]}, spec, topics.deadline(), isolation)
    if topic in errors:
        raise errors[topic]
    return answers[topic].get(partition)

"""Partitions that the client stopped reading after an error, and the retries."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from confluent_kafka import KafkaError

from ..core.backoff import Backoff
from ..core.errors import DataLoss, IngestError, KafkaUnavailable, NotPermitted, TopicMissing
from ..core.loss import data_loss
from ..core.ports import Clock
from ..core.start import unanswered_words
from .errors import is_corrupt, map_error
from .topic import KafkaTopic


class StoppedPartitions:
    """Decides for a stopped partition between another try and an error.

    A missing right, a silent leader and a corrupt batch are retried: the right may be granted again, and the network
    may have damaged the batch or another replica may lead soon.

    Args:
        next_offset: partition → offset at which reading goes on.

    Attributes:
        errors: partition → error. The first error counts, because later errors may be its consequence.
    """

    def __init__(
        self, topic: KafkaTopic, clock: Clock, retry_seconds: float, next_offset: Callable[[int], int]
    ) -> None:
        self._topic = topic
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._next_offset = next_offset
        self._backoffs: dict[int, Backoff] = {}
        self.errors: dict[int, KafkaError] = {}

    def add(self, partition: int, error: KafkaError) -> None:
        self.errors.setdefault(partition, error)

    @property
    def retried(self) -> bool:
        """Whether a partition has been retried and has brought neither a record nor its end since."""
        return bool(self._backoffs)

    def recovered(self, partitions: Iterable[int]) -> None:
        """These partitions can be read again: their next error gets the full time for retries."""
        for partition in partitions:
            self._backoffs.pop(partition, None)

    def wait_or_raise(self) -> None:
        """Wait until the first stopped partition may be tried again. Raises its error when retries do not help."""
        partition, error = next(iter(self.errors.items()))
        fault = self._fault(partition, error)
        if not isinstance(fault, (NotPermitted, KafkaUnavailable)) and not is_corrupt(error):
            raise fault
        if partition not in self._backoffs:
            self._backoffs[partition] = Backoff(self._clock, self._retry_seconds, lambda: None)
        self._backoffs[partition].wait(fault)

    def _fault(self, partition: int, error: KafkaError) -> IngestError:
        offset = self._next_offset(partition)
        where = f"{self._topic.where}, partition {partition}"
        fault = map_error(error, where, partition=partition, offset=offset)
        if isinstance(fault, DataLoss):
            return self._loss(partition, offset, is_corrupt(error))
        if isinstance(fault, TopicMissing) and partition < self._topic.identity().partitions:
            return KafkaUnavailable(
                f"{where}: a broker does not know the partition yet", partition=partition, offset=offset
            )
        return fault

    def _loss(self, partition: int, offset: int, corrupt: bool) -> DataLoss | KafkaUnavailable:
        """The loss with the log's bounds. Without an answer from the leader, the bounds are unknown."""
        low = self._topic.start_offsets([partition]).get(partition)
        high = self._topic.high_watermarks([partition]).get(partition)
        if low is None or high is None:
            return KafkaUnavailable(
                f"{self._topic.where}, {unanswered_words([partition])}", partition=partition, offset=offset
            )
        return data_loss(
            self._topic.where,
            partition=partition,
            expected=offset,
            low=low.next_offset,
            high=high.next_offset,
            corrupt=corrupt,
        )

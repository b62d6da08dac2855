"""The record source: partitions are assigned explicitly, without group membership or offset resets."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from ..core.clock import SystemClock
from ..core.errors import IngestError, KafkaUnavailable
from ..core.ports import Clock
from ..core.record import Chunk, NextOffset, next_offset_or_none
from ..core.start import unanswered_words
from .client import consumer_config, ledger_mark, open_client, topic_partition
from .errors import map_error
from .group_commits import GroupCommits
from .partition_ends import PartitionEnds
from .stopped_partitions import StoppedPartitions
from .topic import KafkaTopic

_MAX_CONSUME = 1_000_000
_CLOSE_SECONDS = 2.0
_METADATA_SECONDS = 1.0
_error_of = Message.error


class KafkaSource:
    """The `Source` port on a consumer with assigned partitions. For one thread.

    - The client reconnects by itself. `read` raises KafkaUnavailable when no message has arrived for `retry_seconds`
      after the first sign of trouble and the brokers do not answer a question about the ends either.
    - The client stops reading a partition after a missing right (librdkafka 2.16, on the mock cluster). `read` assigns
      the partitions again for `retry_seconds`, because the right may be granted again.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        topic: KafkaTopic,
        *,
        group_id: str,
        ledger_id: str,
        batch_bytes: int,
        client_id: str = "ingest",
        retry_seconds: float = 30.0,
        logger: logging.Logger | None = None,
        clock: Clock | None = None,
        client_class: Callable[..., Consumer] = Consumer,
    ) -> None:
        """Connects in the background, also to brokers that do not answer yet.

        Args:
            kafka: the user's librdkafka properties, validated.
            topic: answers questions about ends and starts. `close` leaves it open.
            ledger_id: becomes part of the mark in the group's commits.
        """
        self._topic = topic
        self._retry_seconds = retry_seconds
        self._logger = logger or logging.getLogger(__name__)
        self._clock = clock or SystemClock()
        self._mark = ledger_mark(ledger_id)
        self._group = GroupCommits(f"{topic.where}, group {group_id}", self._logger, self._clock)
        self._ends = PartitionEnds(topic, self._clock, self._served)
        self._stopped = StoppedPartitions(
            topic, self._clock, retry_seconds, lambda partition: self._served(partition).next_offset
        )
        self._assigned: dict[int, NextOffset] = {}
        self._fault: IngestError | None = None
        self._trouble_since: float | None = None
        self._closed = False
        config = consumer_config(kafka, group_id, batch_bytes, client_id)
        config |= {"error_cb": self._on_error, "on_commit": self._group.on_commit}
        self._consumer = open_client(client_class, config, self._logger)

    def assign(self, offsets: Mapping[int, NextOffset]) -> None:
        first = not self._assigned
        self._assigned = dict(offsets)
        self._stopped.errors, self._ends.pending = {}, {}
        try:
            self._consumer.assign([topic_partition(self._topic.name, *item) for item in offsets.items()])
        except KafkaException as error:
            raise map_error(error, self._topic.where) from error
        if first:
            self._request_metadata()

    def _request_metadata(self) -> None:
        """Learn the leaders at once. An idle client asks at the next tick of its 1 s timer (2.16, measured).

        The request follows `assign`: the client does not check the epoch with an already known leader, and would
        overlook a log that was truncated and has grown again.
        """
        with suppress(KafkaException):  # `read` waits for brokers that do not answer
            self._consumer.list_topics(self._topic.name, timeout=_METADATA_SECONDS)

    def read(self, max_records: int, timeout_seconds: float) -> Chunk:
        if self._fault is not None:
            raise self._fault
        if self._stopped.errors:
            self._retry_stopped()
        try:
            messages: list[Any] = self._consumer.consume(min(max_records, _MAX_CONSUME), timeout_seconds)
        except KafkaException as error:
            raise map_error(error, self._topic.where) from error
        self._commit(self._group.take_due())
        if not messages:
            self._check_trouble()
            return Chunk((), self._ends.resolve({})) if self._ends.pending and self._trouble_since is None else Chunk()
        if not any(map(_error_of, messages)):  # runs in C, the only check for each record
            self._trouble_since = None
            if self._stopped.retried:
                self._stopped.recovered(record.partition() for record in messages)
            return Chunk(messages)
        return self._chunk_of_events(messages)

    def acknowledge(self, offsets: Mapping[int, NextOffset]) -> None:
        self._group.add(offsets)
        self._commit(self._group.take_due())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        deadline = self._clock.monotonic() + _CLOSE_SECONDS
        self._consumer.unassign()
        while self._clock.monotonic() < deadline:
            if not self._group.in_flight:
                self._commit(self._group.take_rest())
            if not self._group.in_flight:
                break
            self._consumer.poll(0.05)  # runs the commit's callback
        # While a commit has no answer, the client may wait much longer for a frozen broker. A thread takes that wait.
        closing = threading.Thread(target=self._consumer.close, name="kafka-close", daemon=True)
        closing.start()
        closing.join(max(0.1, deadline - self._clock.monotonic()))

    def _commit(self, offsets: Mapping[int, NextOffset]) -> None:
        if not offsets:
            return
        name = self._topic.name
        try:
            self._consumer.commit(
                offsets=[topic_partition(name, *item, self._mark) for item in offsets.items()], asynchronous=True
            )
        except KafkaException as error:
            self._group.refuse(error)

    def _chunk_of_events(self, messages: list[Any]) -> Chunk:
        """Separates records from events. The records are returned before an error behind them is raised."""
        records: list[Any] = []
        reported: dict[int, int] = {}
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                if (end := next_offset_or_none(message.offset(), None)) is not None:
                    reported[message.partition()] = end.next_offset
            else:
                self._note_event(message, error)
        if records or not reported.keys() <= self._ends.pending.keys():
            self._trouble_since = None
            self._stopped.recovered([*(record.partition() for record in records), *self._ends.pending, *reported])
        ends = self._ends.resolve(reported)
        if self._stopped.errors and not records and not ends:
            self._retry_stopped()
        return Chunk(records, ends)

    def _note_event(self, message: Any, error: KafkaError) -> None:
        """An event without a topic concerns the client, whatever partition the event shows."""
        if message.topic() is None or isinstance(map_error(error, self._topic.where), KafkaUnavailable):
            self._on_error(error)
        else:
            self._stopped.add(message.partition(), error)

    def _on_error(self, error: KafkaError) -> None:
        """The client calls this method from inside `consume`."""
        mapped = map_error(error, self._topic.where)
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            self._group.refuse(error)  # reading needs no right on the group, only lag tools do
        elif isinstance(mapped, KafkaUnavailable) and not error.fatal():
            if self._trouble_since is None:
                self._trouble_since = self._clock.monotonic()
        else:
            self._fault = mapped

    def _check_trouble(self) -> None:
        if self._fault is not None:
            raise self._fault
        if self._trouble_since is None or self._clock.monotonic() - self._trouble_since < self._retry_seconds:
            return
        # An idle topic gives no sign when its broker is back, so the brokers are asked before the run gives up. An
        # answer for one partition is enough: the other partitions may follow.
        if self._assigned and not self._topic.end_offsets(self._assigned):
            raise KafkaUnavailable(f"{self._topic.where}: {unanswered_words(self._assigned)}")
        self._trouble_since = None

    def _retry_stopped(self) -> None:
        self._stopped.wait_or_raise()
        self.assign({partition: self._served(partition) for partition in self._assigned})

    def _served(self, partition: int) -> NextOffset:
        """The next offset after every returned record and transaction marker. At first, the assigned offset."""
        (position,) = self._consumer.position([TopicPartition(self._topic.name, partition)])
        return next_offset_or_none(position.offset, position.leader_epoch) or self._assigned[partition]

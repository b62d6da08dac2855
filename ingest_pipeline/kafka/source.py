"""The record source: partitions are assigned explicitly, without group membership or offset resets."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from ..core.background import Background, in_background
from ..core.clock import SystemClock
from ..core.errors import IngestError, KafkaUnavailable, TopicMissing
from ..core.ports import Clock
from ..core.record import LEDGER_MARK, Chunk, NextOffset, next_offset_or_none
from .client import consumer_config, open_client, topic_partition
from .commit_requests import CommitRequests
from .errors import map_error
from .group_commits import GroupCommits
from .partition_ends import Partition, PartitionEnds
from .stopped_partitions import StoppedPartitions
from .topics import KafkaTopics
from .trouble import Trouble

_MAX_CONSUME = 1_000_000
_CLOSE_SECONDS = 2.0
_METADATA_SECONDS = 1.0
_SEEK_SECONDS = 1.0
_ANSWER_SECONDS = 0.02
"""The longest read while a broker's answer about an end is expected."""
_error_of, _topic_of = Message.error, Message.topic


class KafkaSource:
    """The `Source` port on a consumer with assigned partitions. For one thread.

    - The client reconnects by itself. After a sign of trouble and `retry_seconds` without a message, `read` asks the
      brokers for the ends, and raises KafkaUnavailable without an answer.
    - The client stops reading a partition after a missing right (librdkafka 2.16, on the mock cluster). `read` assigns
      the partition again for `retry_seconds`, because the right may be granted again.
    - Brokers are asked in the background, so that the records of other topics do not wait for an answer.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        topics: KafkaTopics,
        groups: Mapping[str, str],
        *,
        ledger_id: str,
        batch_bytes: int,
        client_id: str = "ingest",
        retry_seconds: float = 30.0,
        logger: logging.Logger | None = None,
        clock: Clock | None = None,
        client_class: Callable[..., Consumer] = Consumer,
        background: Background = in_background,
    ) -> None:
        """Connects in the background, also to brokers that do not answer yet.

        Args:
            kafka: the user's librdkafka properties, validated.
            topics: answers questions about ends and starts. `close` leaves its client open.
            groups: topic → group id, for all topics that may be assigned.
            ledger_id: becomes part of the mark in the groups' commits.
        """
        self._topics = topics
        self._logger = logger or logging.getLogger(__name__)
        self._clock = clock or SystemClock()
        requests = CommitRequests(topics.admin, groups, background, client_class)
        self._commits = GroupCommits(
            topics.admin.where,
            groups,
            LEDGER_MARK + ledger_id,
            ask=lambda topic, partitions: requests.ask(topic, {*partitions, *self._assigned.get(topic, ())}),
            send=lambda topic, offsets: requests.send(self._consumer, topic, offsets),
            logger=self._logger,
            clock=self._clock,
        )
        self._ends = PartitionEnds(topics, self._clock, self._served)
        self._stopped = StoppedPartitions(topics, self._clock, retry_seconds, background)
        self._assigned: dict[str, dict[int, NextOffset]] = {}
        self._unknown_topics = set(groups)
        self._fault: IngestError | None = None
        self._trouble = Trouble(topics, self._clock, retry_seconds, background)
        self._closed = False
        self._first_topic = next(iter(groups))
        config = consumer_config(kafka, groups[self._first_topic], batch_bytes, client_id)
        config |= {"error_cb": self._on_error, "on_commit": requests.on_commit}
        self._consumer = open_client(client_class, config, self._logger)

    def assign(self, topic: str, offsets: Mapping[int, NextOffset]) -> None:
        self._ends.forget(topic)
        self._stopped.forget(topic)
        try:
            self._unassign((topic, partition) for partition in self._assigned.pop(topic, {}))
            if offsets:
                self._assigned[topic] = dict(offsets)
                self._assign([(topic, partition) for partition in offsets])
        except KafkaException as error:
            raise map_error(error, self._topics.metadata.where(topic)) from error

    def read(self, max_records: int, timeout_seconds: float) -> dict[str, Chunk]:
        if self._fault is not None:
            raise self._fault
        if self._unknown_topics:
            self._request_metadata()
        if self._ends.asked:
            timeout_seconds = min(timeout_seconds, _ANSWER_SECONDS)
        try:
            if self._stopped:
                self._read_again(self._stopped.take_due())
            messages: list[Any] = self._consumer.consume(min(max_records, _MAX_CONSUME), timeout_seconds)
        except KafkaException as error:
            raise map_error(error, self._topics.admin.where) from error
        self._commits.send_due()
        reported: dict[Partition, int] = {}
        events = any(map(_error_of, messages))  # runs in C, the only check for each record
        records = self._take_events(messages, reported) if events else self._by_topic(messages)
        if records or reported:
            self._trouble.end()
            if self._stopped.retried:
                read = {(topic, record.partition()) for topic, chunk in records.items() for record in chunk}
                self._stopped.recovered([*read, *reported])
        elif self._fault is not None:
            raise self._fault
        else:
            self._trouble.check(self._assigned)
        if not reported and not self._ends.pending and not self._stopped:
            return {topic: Chunk(chunk) for topic, chunk in records.items()}
        ends, errors = self._ends.resolve(reported), self._stopped.errors()
        for topic in errors:
            self.assign(topic, {})
        topics = records.keys() | ends.keys() | errors.keys()
        return {topic: Chunk(records.get(topic, ()), ends.get(topic, {}), errors.get(topic)) for topic in topics}

    def acknowledge(self, topic: str, offsets: Mapping[int, NextOffset]) -> None:
        self._commits.add(topic, offsets)
        self._commits.send_due()

    def earlier_commits(self, topic: str) -> Mapping[int, int]:
        return self._commits.earlier(topic)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        deadline = self._clock.monotonic() + _CLOSE_SECONDS
        self._consumer.unassign()
        while self._clock.monotonic() < deadline:
            self._commits.send_rest()
            if self._commits.done:
                break
            self._consumer.poll(0.05)  # runs the commit's callback
        # While a commit has no answer, the client may wait much longer for a frozen broker. A thread takes that wait.
        closing = threading.Thread(target=self._consumer.close, name="kafka-close", daemon=True)
        closing.start()
        closing.join(max(0.1, deadline - self._clock.monotonic()))

    def _assign(self, partitions: Collection[Partition]) -> None:
        """Read from the assigned offsets.

        The client checks the epoch of an assigned offset only when it learns the leader. With an already known leader,
        a seek makes the client check the epoch, and notice a log that was truncated and has grown again.
        """
        positions = [topic_partition(topic, number, self._assigned[topic][number]) for topic, number in partitions]
        self._consumer.incremental_assign(positions)
        for position in positions:
            if position.topic not in self._unknown_topics and position.leader_epoch is not None:
                self._seek(position)

    def _seek(self, position: TopicPartition) -> None:
        """Repeats the seek until the client's own thread has started to read the partition."""
        deadline = self._clock.monotonic() + _SEEK_SECONDS
        while True:
            try:
                return self._consumer.seek(position)
            except KafkaException as error:
                early = error.args[0].code() in (KafkaError._STATE, KafkaError._OUTDATED)
                if not early or self._clock.monotonic() > deadline:
                    raise
            self._clock.sleep(0.001)

    def _unassign(self, partitions: Iterable[Partition]) -> None:
        if positions := [TopicPartition(topic, partition) for topic, partition in partitions]:
            self._consumer.incremental_unassign(positions)

    def _read_again(self, partitions: Sequence[Partition]) -> None:
        """Assign partitions that the client stopped reading."""
        if partitions:
            for topic, partition in partitions:
                self._assigned[topic][partition] = self._served((topic, partition))
            self._unassign(partitions)
            self._assign(partitions)

    def _request_metadata(self) -> None:
        """Learn the leaders at once. An idle client asks at the next tick of its 1 s timer (2.16, measured).

        The request follows the first `assign`, so that the client checks the epochs of the assigned offsets.
        """
        deadline = self._clock.monotonic() + _METADATA_SECONDS
        topics = self._unknown_topics & self._assigned.keys()
        self._unknown_topics -= topics
        with suppress(KafkaException):  # `read` waits for brokers that do not answer
            for topic in topics:
                self._consumer.list_topics(topic, timeout=max(0.0, deadline - self._clock.monotonic()))

    def _by_topic(self, records: list[Any]) -> dict[str, list[Any]]:
        if len(self._assigned) == 1 and records:
            return {next(iter(self._assigned)): records}
        by_topic: dict[str, list[Any]] = {}
        for topic, chunk in groupby(records, _topic_of):  # runs in C, and a partition's records arrive together
            by_topic.setdefault(str(topic), []).extend(chunk)
        return by_topic

    def _take_events(self, messages: list[Any], reported: dict[Partition, int]) -> dict[str, list[Any]]:
        """Note events, and return the records by topic."""
        for message in messages:
            error, key = message.error(), (message.topic(), message.partition())
            if error is None or (key[0] is not None and key[1] not in self._assigned.get(key[0], {})):
                continue
            if error.code() != KafkaError._PARTITION_EOF:
                self._note_event(key, error)
            elif (end := next_offset_or_none(message.offset(), None)) is not None:
                reported[key] = end.next_offset
        return self._by_topic([message for message in messages if message.error() is None])

    def _note_event(self, key: Partition, error: KafkaError) -> None:
        """An event without a topic concerns the client, whatever partition the event shows."""
        if key[0] is None or isinstance(map_error(error, self._topics.admin.where), KafkaUnavailable):
            self._on_error(error)
        else:
            self._stopped.add(key, error, self._served(key).next_offset)

    def _on_error(self, error: KafkaError) -> None:
        """The client calls this method from inside `consume`."""
        mapped = map_error(error, self._topics.admin.where)
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            # Reading needs no right on the group, only lag tools do.
            self._commits.refuse(self._first_topic, error)
        elif isinstance(mapped, KafkaUnavailable) and not error.fatal():
            self._trouble.note()
        elif isinstance(mapped, TopicMissing):
            pass  # one topic of several. The partition's own event and the checks of the topic's id name the topic
        else:
            self._fault = mapped

    def _served(self, key: Partition) -> NextOffset:
        """The next offset after every returned record and transaction marker. At first, the assigned offset."""
        topic, number = key
        (position,) = self._consumer.position([TopicPartition(topic, number)])
        return next_offset_or_none(position.offset, position.leader_epoch) or self._assigned[topic][number]

"""Records by explicit assignment: no group membership, no resets, ends of partition told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from ..core.backoff import Backoff
from ..core.clock import SystemClock
from ..core.errors import DataLoss, IngestError, KafkaUnavailable, NotPermitted, TopicMissing
from ..core.loss import data_loss
from ..core.ports import Clock
from ..core.record import Chunk, NextOffset, place_or_none
from ..core.start import unanswered_words
from .client import consumer_config, ledger_mark, open_client, topic_partition
from .errors import is_corrupt, map_error
from .group_commits import GroupCommits
from .topic import KafkaTopic

_MAX_CONSUME = 1_000_000
_CLOSE_SECONDS = 2.0
_LEADERS_SECONDS = 1.0
_ASK_AGAIN_SECONDS = 5.0
"""How long after an end could not be told in full it is asked for again: records of other partitions wait meanwhile."""
_error_of = Message.error


class KafkaSource:
    """The `Source` port on a consumer that is assigned, never subscribed. Used by one thread.

    Trouble with brokers is waited out: the client reconnects by itself. `read` raises KafkaUnavailable when
    nothing has come for `patience_seconds` since the first sign of trouble, and asking for the ends fails too. A right
    that is taken away may come back: for as long the partitions are assigned again and again, since the client itself
    reads no further (2.16, seen on its mock cluster).
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
        patience_seconds: float = 30.0,
        logger: logging.Logger | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Connects in the background: brokers that are away are no error here.

        Args:
            kafka: the user's librdkafka properties, validated.
            topic: answers about ends and starts; left open by `close`.
            ledger_id: goes into the mark of the group's commits.
        """
        self._topic = topic
        self._patience = patience_seconds
        self._logger = logger or logging.getLogger(__name__)
        self._clock = clock or SystemClock()
        self._mark = ledger_mark(ledger_id)
        self._group = GroupCommits(f"{topic.where}, group {group_id}", self._logger, self._clock)
        self._assigned: dict[int, NextOffset] = {}
        self._stopped: dict[int, KafkaError] = {}  # partitions that the client reads no further
        self._open_ends: dict[int, int] = {}  # ends that lie beyond the last record, epoch not known yet
        self._fault: IngestError | None = None
        self._trouble_since: float | None = None
        self._refusals: dict[int, Backoff] = {}  # partitions that could not be read, until they can
        self._ask_ends_at = 0.0
        self._closed = False
        config = consumer_config(kafka, group_id, batch_bytes, client_id)
        config |= {"error_cb": self._on_error, "on_commit": self._group.on_commit}
        self._consumer = open_client(Consumer, config, self._logger)

    def assign(self, places: Mapping[int, NextOffset]) -> None:
        first = not self._assigned
        self._assigned = dict(places)
        self._stopped, self._open_ends = {}, {}
        try:
            self._consumer.assign([topic_partition(self._topic.name, *item) for item in places.items()])
        except KafkaException as error:
            raise map_error(error, self._topic.where) from error
        if first:
            self._learn_leaders()

    def _learn_leaders(self) -> None:
        """Ask now: a client that has been idle would do so at the next tick of its 1 s timer (2.16, measured).

        Only behind `assign`: a leader that it knew before, the client does not ask whether the epoch still holds, and a
        log that was cut and has grown again would go unnoticed.
        """
        with suppress(KafkaException):  # brokers that are away are waited for while reading
            self._consumer.list_topics(self._topic.name, timeout=_LEADERS_SECONDS)

    def read(self, max_records: int, timeout_seconds: float) -> Chunk:
        if self._fault is not None:
            raise self._fault
        if self._stopped:
            self._raise_or_resume()
        try:
            messages: list[Any] = self._consumer.consume(min(max_records, _MAX_CONSUME), timeout_seconds)
        except KafkaException as error:
            raise map_error(error, self._topic.where) from error
        self._commit(self._group.take_due())
        if not messages:
            self._check_trouble()
            return self._chunk_of_events([]) if self._open_ends and self._trouble_since is None else Chunk()
        if not any(map(_error_of, messages)):  # all in C: the one check a record pays for
            self._trouble_since = None
            if self._refusals:
                self._forget_refusals(messages)
            return Chunk(messages)
        return self._chunk_of_events(messages)

    def acknowledge(self, places: Mapping[int, NextOffset]) -> None:
        self._group.add(places)
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
            self._consumer.poll(0.05)  # brings the answer
        # With an answer outstanding the client may wait much longer for a frozen broker: then behind our back.
        closing = threading.Thread(target=self._consumer.close, name="kafka-close", daemon=True)
        closing.start()
        closing.join(max(0.1, deadline - self._clock.monotonic()))

    def _commit(self, places: Mapping[int, NextOffset]) -> None:
        if not places:
            return
        name = self._topic.name
        try:
            self._consumer.commit(
                offsets=[topic_partition(name, *item, self._mark) for item in places.items()], asynchronous=True
            )
        except KafkaException as error:
            self._group.refuse(error)

    def _chunk_of_events(self, messages: list[Any]) -> Chunk:
        """Records and events apart. Records are handed over before an event behind them is raised."""
        records: list[Any] = []
        at_end: dict[int, int] = dict(self._open_ends)
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                if (place := place_or_none(message.offset(), None)) is not None:
                    at_end[message.partition()] = place.next_offset
            else:
                self._note_event(message, error)
        if records or len(at_end) > len(self._open_ends):
            self._trouble_since = None
            self._forget_refusals(records)
            self._refusals = {p: waits for p, waits in self._refusals.items() if p not in at_end}
        ends = self._resolve_ends(at_end) if at_end else {}
        if self._stopped and not records and not ends:
            self._raise_or_resume()
        return Chunk(records, ends)

    def _forget_refusals(self, records: list[Any]) -> None:
        for record in records:
            self._refusals.pop(record.partition(), None)

    def _note_event(self, message: Any, error: KafkaError) -> None:
        """An event without a topic is the client's own, whatever partition it shows."""
        if message.topic() is None or isinstance(map_error(error, self._topic.where), KafkaUnavailable):
            self._on_error(error)
        else:
            self._stopped.setdefault(message.partition(), error)  # what follows the first one may follow from it

    def _on_error(self, error: KafkaError) -> None:
        """The client's own troubles; called by it from inside `consume`."""
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
        if self._trouble_since is None or self._clock.monotonic() - self._trouble_since < self._patience:
            return
        # An idle topic says nothing when its broker is back: ask, before giving up. One leader that answers is enough:
        # the other partitions are waited for.
        if self._assigned and not self._topic.end_offsets(self._assigned):
            raise KafkaUnavailable(f"{self._topic.where}: {unanswered_words(self._assigned)}")
        self._trouble_since = None

    def _resolve_ends(self, at_end: Mapping[int, int]) -> dict[int, NextOffset]:
        """Places of the ends. One that lies beyond the last record served takes its epoch from the broker.

        Neither the last record's epoch nor the event's may stand for it: after a change of leader, both have
        claimed a truncation that was none.
        """
        ends: dict[int, NextOffset] = {}
        beyond: dict[int, int] = {}
        for partition, offset in at_end.items():
            served = self._served(partition)
            if offset == served.next_offset:
                ends[partition] = served
            elif offset > served.next_offset:
                beyond[partition] = offset
        self._open_ends = beyond  # the client tells an end only once
        if beyond and self._clock.monotonic() >= self._ask_ends_at:
            try:
                latest = self._topic.end_offsets(beyond)
            except (KafkaUnavailable, NotPermitted):
                latest = {}
            for partition in latest:
                ends[partition] = NextOffset(beyond.pop(partition), latest[partition].leader_epoch)
            if beyond:
                self._ask_ends_at = self._clock.monotonic() + _ASK_AGAIN_SECONDS
        return ends

    def _served(self, partition: int) -> NextOffset:
        """Behind everything handed over so far, transaction markers included; at first the assigned place."""
        (position,) = self._consumer.position([TopicPartition(self._topic.name, partition)])
        return place_or_none(position.offset, position.leader_epoch) or self._assigned[partition]

    def _raise_or_resume(self) -> None:
        partition, error = next(iter(self._stopped.items()))
        expected = self._served(partition).next_offset
        where = f"{self._topic.where}, partition {partition}"
        mapped = map_error(error, where, partition=partition, offset=expected)
        if isinstance(mapped, DataLoss):
            mapped = self._measured(partition, expected, is_corrupt(error))
        elif isinstance(mapped, TopicMissing) and partition < self._topic.identity().partitions:
            mapped = KafkaUnavailable(f"{where}: a broker does not know it yet", partition=partition, offset=expected)
        # A corrupt batch is read again for as long: the network may have spoilt it, and another replica may lead soon.
        if not isinstance(mapped, (NotPermitted, KafkaUnavailable)) and not is_corrupt(error):
            raise mapped
        if partition not in self._refusals:
            self._refusals[partition] = Backoff(self._clock, self._patience, lambda: None)
        self._refusals[partition].wait(mapped)
        self.assign({each: self._served(each) for each in self._assigned})

    def _measured(self, partition: int, expected: int, corrupt: bool) -> DataLoss | KafkaUnavailable:
        """A loss with the log's bounds, once the leader tells them."""
        low = self._topic.start_offsets([partition]).get(partition)
        high = self._topic.high_watermarks([partition]).get(partition)
        if low is None or high is None:
            return KafkaUnavailable(
                f"{self._topic.where}, {unanswered_words([partition])}", partition=partition, offset=expected
            )
        return data_loss(self._topic.where, partition, expected, low.next_offset, high.next_offset, corrupt)

"""Producers that write to the topics during faults, and lists of acknowledged records."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ingest_pipeline_tests.faults import feed

PARTITIONS = 4
_PAUSE_SECONDS = 0.1
_IN_TRANSACTION = 8
_TRY_SECONDS = 10.0
_NOT_TOLD = -1


class At(NamedTuple):
    """Coordinates of a record."""

    stream: str
    partition: int
    offset: int


class Issued:
    """The outcome of every written record, by number.

    Attributes:
        acknowledged: coordinates → number. Each of these must become a row, a dead letter, or a skipped tombstone.
        unplaced: acknowledged without an offset, because the broker recognised a retry.
        aborted: must never be read.
        in_doubt: the broker gave no answer. The log may or may not hold these records.
    """

    def __init__(self) -> None:
        self._numbers = {stream: itertools.count() for stream in feed.SHAPES}
        self._lock = threading.Lock()
        self.acknowledged: dict[At, int] = {}
        self.unplaced: set[tuple[str, int]] = set()
        self.aborted: set[tuple[str, int]] = set()
        self.in_doubt: set[tuple[str, int]] = set()

    def next(self, stream: str) -> int:
        return next(self._numbers[stream])

    def next_good(self, stream: str) -> int:
        return next(number for number in self._numbers[stream] if feed.kind(number) == "row")

    def add(self, records: Iterable[tuple[At, int]]) -> None:
        with self._lock:
            self._acknowledge(records)

    def _acknowledge(self, records: Iterable[tuple[At, int]]) -> None:
        for coordinates, number in records:
            if coordinates.offset == _NOT_TOLD:
                self.unplaced.add((coordinates.stream, number))
            else:
                self.acknowledged[coordinates] = number

    def doubt(self, written: Iterable[tuple[str, int]]) -> None:
        with self._lock:
            self.in_doubt.update(written)

    def settle(self, written: Iterable[tuple[str, int]], committed: Iterable[tuple[At, int]] | None) -> None:
        """How a transaction ended. None means aborted."""
        with self._lock:
            self.in_doubt.difference_update(written)
            if committed is None:
                self.aborted.update(written)
            else:
                self._acknowledge(committed)


class Producers:
    """Three threads that write to both topics until the end of the block: without transactions, in transactions that
    commit, and in transactions that abort. On exit nothing is in progress.
    """

    def __init__(self, bootstrap_servers: str, seed: int) -> None:
        self._settings = {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,  # a retry leaves no second copy in the log
            "reconnect.backoff.max.ms": 500,
            # A frozen broker is given up so soon, and the leader that has followed it is asked for.
            "request.timeout.ms": 4000,
            "socket.timeout.ms": 5000,
            "linger.ms": 5,
            "log_level": 0,
        }
        self._seed = seed
        self.issued = Issued()
        self._flood = itertools.count(feed.FLOOD)
        self._stop = threading.Event()
        self._burst = threading.Semaphore(0)
        self._plain, self._fresh = self._producer(), self._producer()
        self._failed: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(run,), name=run.__name__)
            for run in (self._write_plainly, self._commit, self._abort)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for producer in (self._plain, self._fresh):
            assert producer.flush(120) == 0

    def check(self) -> None:
        """Raise the error that ended a thread."""
        if self._failed:
            raise self._failed[0]

    def burst(self) -> None:
        """Write fast, so that a lag of many batches builds up."""
        self._burst.release()

    def flood(self, stream: str, count: int) -> None:
        """Write poison alone, beyond the stream's dead-letter limit, to each partition in turn."""
        for _ in range(count):
            number = next(self._flood)
            self._write(self._fresh, stream, number, partition=number % PARTITIONS)
        assert self._fresh.flush(120) == 0

    def fresh(self) -> list[At]:
        """Write one valid record to every partition of every stream. Returns after all acknowledgements."""
        written: list[At] = []

        def acknowledged(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            if (coordinates := _at(message)).offset != _NOT_TOLD:
                written.append(coordinates)

        for stream in feed.SHAPES:
            for partition in range(PARTITIONS):
                self._write(self._fresh, stream, self.issued.next_good(stream), partition=partition, then=acknowledged)
        assert self._fresh.flush(120) == 0
        return written

    def _producer(self, **more: object) -> Producer:
        return Producer({**self._settings, **more})

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            self._failed.append(error)
            raise

    def _write(
        self,
        producer: Producer,
        stream: str,
        number: int,
        partition: int,
        then: Callable[[KafkaError | None, Message], None] = lambda error, message: None,
        acknowledge: bool = True,
    ) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if acknowledge and error is not None:
                self.issued.doubt([(stream, number)])
            elif acknowledge:
                self.issued.add([(_at(message), number)])
            then(error, message)

        value = feed.value(stream, number)
        while True:
            try:
                producer.produce(stream, value, str(number), partition, on_delivery=delivered)
                return
            except BufferError:
                producer.poll(0.1)

    def _write_plainly(self) -> None:
        choose = random.Random(f"{self._seed}/plain")
        while not self._stop.wait(_PAUSE_SECONDS):
            count = 1000 if self._burst.acquire(blocking=False) else 5
            count = max(1, 2 * count // len(feed.SHAPES))  # many streams get as many records as two
            for stream in feed.SHAPES:
                for _ in range(count):
                    self._write(self._plain, stream, self.issued.next(stream), choose.randrange(PARTITIONS))
            self._plain.poll(0)

    def _commit(self) -> None:
        self._transactions("commits", Producer.commit_transaction)

    def _abort(self) -> None:
        self._transactions("aborts", Producer.abort_transaction)

    def _transactions(self, name: str, end: Callable[[Producer, float], None]) -> None:
        """End only between transactions, since an open transaction would hide all later records."""
        choose = random.Random(f"{self._seed}/{name}")
        settled = False
        while not (settled and self._stop.is_set()):
            producer = self._producer(**{"transactional.id": f"chaos-{name}", "transaction.timeout.ms": 30_000})
            settled = False
            with suppress(KafkaException):  # a fatal one: the next producer of this id settles what is open
                _retried(producer.init_transactions)
                while not self._stop.wait(choose.uniform(0, 2 * _PAUSE_SECONDS)):
                    self._transaction(producer, choose, end)
                settled = True

    def _transaction(self, producer: Producer, choose: random.Random, end: Callable[[Producer, float], None]) -> None:
        """The end of a transaction decides about its records: acknowledged, aborted, or in doubt without an answer."""
        chosen = choose.choices(list(feed.SHAPES), k=_IN_TRANSACTION)
        written = [(stream, self.issued.next(stream)) for stream in chosen]
        delivered: list[tuple[At, int]] = []
        commits = end is Producer.commit_transaction

        def note(number: int) -> Callable[[KafkaError | None, Message], None]:
            return lambda error, message: None if error else delivered.append((_at(message), number))

        self.issued.doubt(written)
        producer.begin_transaction()
        for stream, number in written:
            self._write(
                producer, stream, number, partition=choose.randrange(PARTITIONS), then=note(number), acknowledge=False
            )
        try:
            producer.flush()
            _retried(lambda seconds: end(producer, seconds))
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise
            _retried(producer.abort_transaction)
            commits = False
        assert not commits or len(delivered) == len(written)
        self.issued.settle(written, delivered if commits else None)


def _retried(call: Callable[[float], None]) -> None:
    """Retry until success or an error that no retry can fix."""
    while True:
        try:
            call(_TRY_SECONDS)
            return
        except KafkaException as error:
            if not error.args[0].retriable():
                raise
            time.sleep(0.1)


def _at(message: Message) -> At:
    """The coordinates of an acknowledged record. The acknowledgement of a recognised retry has no offset."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None
    return At(topic, partition, _NOT_TOLD if offset is None or offset < 0 else offset)

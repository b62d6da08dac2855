"""Those who write to the topics while faults happen, and the list of what the broker acknowledged."""

from __future__ import annotations

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
    """A record's coordinates."""

    stream: str
    partition: int
    offset: int


class Issued:
    """What became of every record that was ever written, by number.

    Attributes:
        acknowledged: coordinates → number. These must become a row, a dead letter or, with no value, nothing.
        unplaced: acknowledged as well, and the broker did not tell the offset: it recognised a retry.
        aborted: must never be seen.
        in_doubt: the broker gave no answer; they may be in the log or not.
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

    def add(self, found: Iterable[tuple[At, int]]) -> None:
        with self._lock:
            self._acknowledge(found)

    def _acknowledge(self, found: Iterable[tuple[At, int]]) -> None:
        for at, number in found:
            if at.offset == _NOT_TOLD:
                self.unplaced.add((at.stream, number))
            else:
                self.acknowledged[at] = number

    def doubt(self, written: Iterable[tuple[str, int]]) -> None:
        with self._lock:
            self.in_doubt.update(written)

    def settle(self, written: Iterable[tuple[str, int]], committed: Iterable[tuple[At, int]] | None) -> None:
        """How a transaction ended. None: it was aborted."""
        with self._lock:
            self.in_doubt.difference_update(written)
            if committed is None:
                self.aborted.update(written)
            else:
                self._acknowledge(committed)


class Producers:
    """Three threads that write to both topics until the end of the block: one plainly, one in transactions that
    commit, one in transactions that abort. On leaving it nothing is under way any more."""

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
        """Raise what has ended a thread."""
        if self._failed:
            raise self._failed[0]

    def burst(self) -> None:
        """Soon there will be a lag of many batches."""
        self._burst.release()

    def fresh(self) -> list[At]:
        """One good record for every partition of every stream, acknowledged when this returns."""
        found: list[At] = []

        def acknowledged(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            if (at := _at(message)).offset != _NOT_TOLD:
                found.append(at)

        for stream in feed.SHAPES:
            for partition in range(PARTITIONS):
                self._write(self._fresh, stream, self.issued.next_good(stream), partition, acknowledged)
        assert self._fresh.flush(120) == 0
        return found

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
            for stream in feed.SHAPES:
                for _ in range(count):
                    self._write(self._plain, stream, self.issued.next(stream), choose.randrange(PARTITIONS))
            self._plain.poll(0)

    def _commit(self) -> None:
        self._transactions("commits", Producer.commit_transaction)

    def _abort(self) -> None:
        self._transactions("aborts", Producer.abort_transaction)

    def _transactions(self, name: str, end: Callable[[Producer, float], None]) -> None:
        """Ends when it is to stop and no transaction is open: one left open would hide what comes after it."""
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
        """Its records are acknowledged or aborted by how it ends, in doubt when it has none."""
        chosen = choose.choices(list(feed.SHAPES), k=_IN_TRANSACTION)
        written = [(stream, self.issued.next(stream)) for stream in chosen]
        delivered: list[tuple[At, int]] = []
        commits = end is Producer.commit_transaction

        def note(number: int) -> Callable[[KafkaError | None, Message], None]:
            return lambda error, message: None if error else delivered.append((_at(message), number))

        self.issued.doubt(written)
        producer.begin_transaction()
        for stream, number in written:
            self._write(producer, stream, number, choose.randrange(PARTITIONS), note(number), acknowledge=False)
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
    """Until it is done, or fails in a way that no retry mends."""
    while True:
        try:
            call(_TRY_SECONDS)
            return
        except KafkaException as error:
            if not error.args[0].retriable():
                raise
            time.sleep(0.1)


def _at(message: Message) -> At:
    """Where an acknowledged record is. A broker that recognises a retry acknowledges it without an offset."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None
    return At(topic, partition, _NOT_TOLD if offset is None or offset < 0 else offset)

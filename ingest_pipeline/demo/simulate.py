"""Sends simulated events to a broker: at a rate, or as fast as the broker takes them.

Only acknowledged records count. The producer is idempotent, and an acknowledged record is in the topic once. Broken
events are counted per topic, for the check produced = rows + dead letters.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from ..core.errors import SettingsError, TopicMissing
from ..kafka.client import admin_config, bootstrap_servers, open_client
from ..kafka.errors import map_error
from ..settings.streams import load_streams
from .devices import SHAPES, Devices, Event, Fleet
from .inventor import Inventor

_POOL_EVENTS = 10_000
_CHUNK = 1000
_PACE_SECONDS = 0.02
_REPORT_SECONDS = 0.2
_ANSWER_SECONDS = 10.0
_log = logging.getLogger(__name__)

_PRODUCER = {
    "enable.idempotence": True,
    "linger.ms": 20,
    "queue.buffering.max.messages": 200_000,
}


@dataclass(frozen=True)
class Plan:
    """What to send.

    Attributes:
        topics: of `SHAPES` and of declared streams, in turns.
        rate: events a second over all topics. 0 is as fast as possible, from a pool of prepared events. Events and
            times then repeat.
    """

    topics: Sequence[str] = tuple(SHAPES)
    rate: float = 200.0
    seconds: float | None = None
    records: int | None = None
    devices: int = 100
    symbols: int = 20
    broken_every: int = 1000
    tombstone_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        possible = list(dict.fromkeys([*SHAPES, *(stream.topic for stream in load_streams())]))
        unknown = [topic for topic in self.topics if topic not in possible]
        if unknown or not self.topics:
            problem = f"not {', '.join(map(repr, unknown))}" if unknown else "name one"
            raise SettingsError(f"only these topics can be simulated: {', '.join(possible)} ({problem})")

    @property
    def total(self) -> int | None:
        """How many records the plan sends, if known before."""
        if self.records is not None:
            return self.records
        return round(self.rate * self.seconds) if self.rate and self.seconds is not None else None


@dataclass
class Count:
    """Records of a topic. `broken` and `tombstones` are part of `acknowledged`."""

    acknowledged: int = 0
    broken: int = 0
    tombstones: int = 0
    failed: int = 0

    def delivered(self, event: Event, error: KafkaError | None, _message: object) -> None:
        if error is not None:
            self.failed += 1
            return
        self.acknowledged += 1
        self.broken += event.broken is not None
        self.tombstones += event.broken is None and event.value is None


@dataclass
class Tally:
    """The records sent so far. The broker has not answered for `unsettled` records."""

    topics: dict[str, Count] = field(default_factory=dict)
    unsettled: int = 0
    seconds: float = 0.0

    @property
    def acknowledged(self) -> int:
        return sum(count.acknowledged for count in self.topics.values())

    @property
    def broken(self) -> int:
        return sum(count.broken for count in self.topics.values())

    @property
    def failed(self) -> int:
        return sum(count.failed for count in self.topics.values())


Sending = tuple[str, Event, Callable[[KafkaError | None, Any], None]]


def simulate(
    kafka: Mapping[str, str],
    plan: Plan,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Send the plan's events until all are sent or `stop()`. On return none is unsettled, or 10 s have passed.

    Args:
        report: called several times a second with the tally, always the same object.

    Raises:
        SettingsError: librdkafka refuses a property.
        StopStream, KafkaUnavailable: the producer cannot go on.
    """
    where = f"Kafka at {bootstrap_servers(kafka)}"
    producer = open_client(Producer, {**admin_config(kafka, "ingest-simulate"), **_PRODUCER}, _log)
    tally = Tally({topic: Count() for topic in plan.topics})
    events = _pooled(plan, tally) if plan.rate == 0 else _fresh(plan, tally)
    started = reported = time.monotonic()
    sent = 0
    try:
        while not stop():
            elapsed = time.monotonic() - started
            due, done = _due(plan, sent, elapsed)
            sent += _send(producer, islice(events, due - sent), stop)
            tally.unsettled, tally.seconds = len(producer), elapsed
            if time.monotonic() - reported >= _REPORT_SECONDS:
                reported = time.monotonic()
                report(tally)
            if done:
                break
            producer.poll(_PACE_SECONDS if plan.rate else 0)
        tally.unsettled = producer.flush(_ANSWER_SECONDS)
    except KafkaException as error:
        raise map_error(error, where) from error
    tally.seconds = time.monotonic() - started
    report(tally)
    return tally


def ensure_topics(kafka: Mapping[str, str], topics: Sequence[str], create_partitions: int | None = None) -> list[str]:
    """Create missing topics, and return their names.

    Raises:
        TopicMissing: a topic does not exist and `create_partitions` is None.
        KafkaUnavailable, NotPermitted: the broker does not answer or refuses.
    """
    where = f"Kafka at {bootstrap_servers(kafka)}"
    admin = open_client(AdminClient, admin_config(kafka, "ingest-simulate"), _log)
    try:
        missing = sorted(set(topics) - set(admin.list_topics(timeout=_ANSWER_SECONDS).topics))
        if missing and create_partitions is None:
            raise TopicMissing(f"{where} has no topic {' and no topic '.join(missing)}: create it with --create-topics")
        topics_to_create = [NewTopic(topic, create_partitions or 1) for topic in missing]
        futures = admin.create_topics(topics_to_create, request_timeout=_ANSWER_SECONDS) if missing else {}
        for future in futures.values():
            future.result(_ANSWER_SECONDS + 1)
    except KafkaException as error:
        raise map_error(error, where) from error
    return missing


def _due(plan: Plan, sent: int, elapsed: float) -> tuple[int, bool]:
    """(records due by now, whether the plan ends with them)."""
    if plan.rate:
        due = int(elapsed * plan.rate) + 1
        over = plan.total is not None and due >= plan.total
    else:
        due = sent + _CHUNK
        over = plan.records is not None and due >= plan.records
        if plan.seconds is not None and elapsed >= plan.seconds:
            return sent, True
    return (plan.total or 0, True) if over else (due, False)


def _send(producer: Producer, events: Iterator[Sending], stop: Callable[[], bool]) -> int:
    """Hand events to the producer, and wait for room in its queue. The number, lower only after `stop()`."""
    sent = 0
    for topic, event, delivered in events:
        while True:
            try:
                producer.produce(topic, event.value, event.key, on_delivery=delivered)
            except BufferError:
                if stop():
                    return sent
                producer.poll(0.05)
            else:
                break
        sent += 1
        if sent % _CHUNK == 0:
            producer.poll(0)
            if stop():
                return sent
    return sent


def _fleet(plan: Plan, topic: str) -> Fleet:
    options = {"broken_every": plan.broken_every, "tombstone_every": plan.tombstone_every, "seed": plan.seed}
    if topic in SHAPES:
        return Devices(topic, devices=plan.devices, symbols=plan.symbols, **options)
    (stream,) = [stream for stream in load_streams() if stream.topic == topic]
    return Inventor(stream, **options)


def _fresh(plan: Plan, tally: Tally) -> Iterator[Sending]:
    """Events with the present time, from all topics in turns."""
    fleets = [(topic, _fleet(plan, topic), tally.topics[topic]) for topic in plan.topics]
    for topic, fleet, count in cycle(fleets):
        event = fleet.event(time.time_ns() // 1000)
        yield topic, event, partial(count.delivered, event)


def _pooled(plan: Plan, tally: Tally) -> Iterator[Sending]:
    """The same prepared events again and again. Whole blocks of `broken_every` keep the share of broken events."""
    size = plan.broken_every * -(-_POOL_EVENTS // plan.broken_every) if plan.broken_every else _POOL_EVENTS
    return cycle(list(islice(_fresh(plan, tally), size * len(plan.topics))))

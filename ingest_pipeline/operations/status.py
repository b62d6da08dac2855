"""Every stream's status: the questions are asked here, and judgement.py judges the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ..core.errors import IngestError, KafkaUnavailable
from ..core.ledger import LedgerSnapshot
from ..core.ports import Topic
from ..core.start import Survey, compare
from . import lateness, open_letters
from .judgement import StreamStatus, judge
from .levels import timed_out
from .partitions import partitions_of
from .snapshot import Answer, NotAsked, StreamSnapshot, T, answered
from .stream_context import StreamContext

KAFKA_SECONDS = 3.0
"""How long all streams together wait for a silent Kafka."""


def statuses(contexts: Iterable[StreamContext], rates: bool = False) -> list[StreamStatus]:
    """Every stream's status. Never raises an IngestError, because a silent server is part of the status. Without Kafka
    the ledger's figures remain.

    Args:
        rates: look at the newest rows for `rows_per_second` too.
    """
    return [judge(snapshot) for snapshot in snapshots(contexts, rates)]


def status_of(context: StreamContext) -> StreamStatus:
    (status,) = statuses([context])
    return status


def snapshots(contexts: Iterable[StreamContext], rates: bool = False) -> Iterator[StreamSnapshot]:
    """Every stream's answers. All streams together wait for a silent Kafka once."""
    kafka = _Kafka()
    for context in contexts:
        stream, delay, poll = context.stream, context.settings.max_delay_seconds, context.job_settings.poll_seconds
        try:
            stored = context.ledger.snapshot()
            snapshot = StreamSnapshot(stream, delay, poll, stored)
            yield _with_answers(snapshot, stored, context, kafka, rates=rates)
        except IngestError as error:
            yield StreamSnapshot(stream, delay, poll, error)


def _with_answers(
    snapshot: StreamSnapshot, stored: LedgerSnapshot, context: StreamContext, kafka: _Kafka, *, rates: bool
) -> StreamSnapshot:
    """The ledger's snapshot with the other answers. Raises the ledger's errors, but for its time-outs."""
    from ..postgres.table_reads import newest_timestamps, rows_per_second

    stream, ledger, database = context.stream, context.ledger, context.clients.database()
    # The topic comes right after the positions: what a run reads in between may be deleted, and that is no loss.
    topic = kafka.ask(context, lambda topic: compare(topic, stored.positions, stored.losses))
    letters = _in_time(ledger.open_letters)
    count = sum(row.letters for row in answered(letters) or ())
    snapshot = replace(
        snapshot,
        topic=topic,
        accounting=_in_time(ledger.accounting),
        open_letters=letters,
        letter_reasons=_in_time(lambda: open_letters.in_words(context, count)) if count else "",
        newest_at=_in_time(lambda: newest_timestamps(database, stream)) if stored.positions else {},
        rows_per_second=_in_time(lambda: rows_per_second(database, stream) if stored.positions else {})
        if rates
        else None,
    )
    partitions, limits = partitions_of(snapshot, stored), (snapshot.max_delay_seconds, lateness.UNATTENDED_SECONDS)
    snapshot = replace(snapshot, partitions=partitions)
    if not isinstance(topic, Survey):
        return snapshot
    old = kafka.ask(context, lambda topic: lateness.ask_kafka(topic, partitions, limits, stored.state))
    return replace(snapshot, old_by_kafka=old)


def _in_time(question: Callable[[], T]) -> T | IngestError:
    """The answer, or the error of a ledger's time-out. Raises every other error."""
    try:
        return question()
    except IngestError as error:
        if timed_out(error):
            return error
        raise


class _Kafka:
    """Asks Kafka about the streams in order, until a time-out."""

    def __init__(self) -> None:
        self._has_answered = False
        self._silence: KafkaUnavailable | None = None

    def ask(self, context: StreamContext, question: Callable[[Topic], T]) -> Answer[T]:
        """The answer. After a time-out no question is asked any more:

        - A Kafka without any answer before is silent for every stream.
        - After other answers Kafka may know the topic, and the topic's state is unknown.
        """
        if self._silence is not None:
            if self._has_answered:
                return NotAsked(
                    f"topic {context.stream.topic} was not asked for after a time-out: {self._silence.message}"
                )
            return KafkaUnavailable(f"asked once for all streams: {self._silence.message}")
        clock = context.clients.clock
        began = clock.monotonic()
        try:
            answer = question(context.clients.topic(context.stream, KAFKA_SECONDS))
        except KafkaUnavailable as error:
            if clock.monotonic() - began >= KAFKA_SECONDS / 2:  # a quick refusal is about this topic alone
                self._silence = error
            return error
        except IngestError as error:
            self._has_answered = True
            return error
        self._has_answered = True
        return answer

"""Everything that was asked about one stream, at one moment. Values only: status.py asks, judgement.py judges."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias, TypeVar

from ..core.errors import IngestError
from ..core.ledger import Account, LedgerSnapshot, LetterCount
from ..core.start import Survey
from ..core.stream import Stream

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NotAsked:
    """Stands for the answer to a question that was left out, and says why."""

    reason: str


Answer: TypeAlias = T | IngestError | NotAsked
"""The answer to a question, or the reason why there is none."""


@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """One stream's answers.

    Attributes:
        topic: the topic compared with the positions.
        old_by_kafka: seconds → partitions whose next record is older than that by Kafka's times. Kafka is asked only
            for partitions whose wait the ledger does not know.
        letter_reasons: a sentence with the most frequent reasons of open dead letters.
        newest_at: partition → the Kafka timestamp of its newest row.
        rows_per_second: partition → rate. None: not wanted.
    """

    stream: Stream
    max_delay_seconds: int
    poll_seconds: int
    ledger: LedgerSnapshot | IngestError
    topic: Answer[Survey] = NotAsked("the ledger did not answer")
    old_by_kafka: Answer[Mapping[int, Collection[int]]] = field(default_factory=dict)
    accounting: Answer[Sequence[Account]] = ()
    open_letters: Answer[Sequence[LetterCount]] = ()
    letter_reasons: Answer[str] = ""
    newest_at: Answer[Mapping[int, datetime]] = field(default_factory=dict)
    rows_per_second: Answer[Mapping[int, float]] | None = None

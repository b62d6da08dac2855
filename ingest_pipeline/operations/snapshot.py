"""All answers about a stream at a moment. Values only: status.py asks, judgement.py judges."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias, TypeVar

from ..core.errors import IngestError, KafkaUnavailable
from ..core.ledger import Account, LedgerSnapshot, LetterCount
from ..core.start import Survey
from ..core.stream import Stream
from .partition_status import PartitionStatus
from .refused_records import LetterFacts

T = TypeVar("T")


NOT_ASKED = KafkaUnavailable("Kafka was not asked, because the ledger did not answer")
Answer: TypeAlias = T | IngestError
"""The answer to a question, or the reason for its absence."""


def answered(answer: Answer[T]) -> T | None:
    return None if isinstance(answer, IngestError) else answer


@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """A stream's answers.

    Attributes:
        topic: the topic compared with the positions.
        old_by_kafka: see lateness.ask_kafka.
        behind_group: what core/behind_group.py says.
        letter_facts: None without an open dead letter.
        newest_at: partition → the Kafka timestamp of its newest row, as far as the table answers.
        rows_per_second: partition → rate. None: not asked.
        sensor_reason: why the sensor does not look, by Dagster. None: not asked, or not known.
        partitions: every partition of the topic and of the ledger, see partitions_of.
    """

    stream: Stream
    max_delay_seconds: int
    poll_seconds: int
    ledger: LedgerSnapshot | IngestError
    topic: Answer[Survey] = NOT_ASKED
    old_by_kafka: Answer[Mapping[int, Collection[int]]] = field(default_factory=dict)
    behind_group: Answer[str | None] = None
    accounting: Answer[Sequence[Account]] = ()
    open_letters: Answer[Sequence[LetterCount]] = ()
    letter_facts: Answer[LetterFacts | None] = None
    newest_at: Mapping[int, datetime] = field(default_factory=dict)
    rows_per_second: Answer[Mapping[int, float] | None] = None
    sensor_reason: str | None = None
    partitions: Sequence[PartitionStatus] = ()

"""Settings as core's own values."""

from __future__ import annotations

from ..core.batch import BatchLimits
from ..core.dead_letter_limit import LetterLimits
from ..core.rows import RecordRules
from ..core.stream import Stream
from ..settings import JobSettings, StreamSettings


def record_rules(own: StreamSettings, stream: Stream) -> RecordRules:
    """The rules for refusing or skipping records before decoding."""
    return RecordRules(own.max_record_bytes, own.dead_letter_max_bytes, own.tombstones, stream.record_columns)


def batch_limits(own: StreamSettings, job: JobSettings, by_hand: bool) -> BatchLimits:
    """When a batch is full. A run with a number of batches or an end offset commits every batch alone."""
    batches_per_commit = 1 if job.run_max_batches or by_hand else max(1, own.records_per_commit // own.batch_size)
    return BatchLimits(own.batch_size, own.batch_bytes, own.batch_timeout_seconds, batches_per_commit)


def letter_limits(own: StreamSettings) -> LetterLimits | None:
    """How many records may be refused. None: any number."""
    if own.dead_letter_limit == "off":
        return None
    return LetterLimits(own.dead_letter_max_ratio, own.dead_letter_max_consecutive)

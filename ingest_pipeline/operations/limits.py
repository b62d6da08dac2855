"""Settings → the values of core that limit records, batches and refusals."""

from ..core.batch import BatchLimits
from ..core.dead_letter_limit import LetterLimits
from ..core.record import RecordKeys
from ..core.rows import RecordRules
from ..core.stream import Stream
from ..settings import JobSettings, StreamSettings


def record_rules(settings: StreamSettings, stream: Stream, record_keys: RecordKeys | None) -> RecordRules:
    """The rules for refusing, skipping or deleting records before decoding."""
    return RecordRules(
        max_record_bytes=settings.max_record_bytes,
        dead_letter_max_bytes=settings.dead_letter_max_bytes,
        tombstones=settings.tombstones,
        record_columns=stream.record_columns,
        record_keys=record_keys,
    )


def batch_limits(settings: StreamSettings, job: JobSettings, by_hand: bool) -> BatchLimits:
    """When a batch is full. A run with a number of batches or an end offset commits every batch alone."""
    alone = job.run_max_batches or by_hand
    return BatchLimits(
        records=settings.batch_size,
        size_bytes=settings.batch_bytes,
        timeout_seconds=settings.batch_timeout_seconds,
        batches_per_commit=1 if alone else max(1, settings.records_per_commit // settings.batch_size),
    )


def letter_limits(settings: StreamSettings) -> LetterLimits | None:
    """How many records may be refused. None: any number."""
    if settings.dead_letter_limit == "off":
        return None
    return LetterLimits(settings.dead_letter_max_ratio, settings.dead_letter_max_consecutive)

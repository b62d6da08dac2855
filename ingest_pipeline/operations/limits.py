"""Settings → the values of core that limit records, batches and refusals."""

from __future__ import annotations

from ..core.batch import BatchLimits
from ..core.dead_letter_limit import LetterLimits
from ..settings import JobSettings, StreamSettings


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

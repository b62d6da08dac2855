"""Settings → the core's own values."""

from __future__ import annotations

from ..core.limit import LetterLimits
from ..core.rows import RecordRules
from ..settings_model import StreamSettings


def record_rules(own: StreamSettings) -> RecordRules:
    """What becomes of records before they are decoded."""
    return RecordRules(own.max_record_bytes, own.dead_letter_max_bytes, own.tombstones == "dead-letter")


def letter_limits(own: StreamSettings) -> LetterLimits | None:
    """How many records may be refused; None for any number."""
    if own.dead_letter_limit == "off":
        return None
    return LetterLimits(own.dead_letter_max_ratio, own.dead_letter_max_consecutive)

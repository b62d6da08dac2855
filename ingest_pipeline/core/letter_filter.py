"""Selects open dead letters for a command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Selects open letters. A field with None does not restrict.

    Attributes:
        reason: a part of the reason's text.
        since, until: range of the refusal's time, without `until` itself.
        ids: of the letters.
    """

    stage: str | None = None
    sqlstate: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: list[int] | None = None

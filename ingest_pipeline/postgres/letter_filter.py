"""Selects open dead letters for a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
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
    ids: Sequence[int] | None = None

    def parameters(self) -> dict[str, Any]:
        """Parameters for the statements of dead_letters_sql.py."""
        return {
            "stage": self.stage,
            "sqlstate": self.sqlstate,
            "reason": self.reason,
            "since": self.since,
            "until": self.until,
            "ids": None if self.ids is None else list(self.ids),
        }

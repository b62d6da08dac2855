"""Which open dead letters a command means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which open letters are meant; what is None does not narrow.

    Attributes:
        reason: a part of the reason's text.
        since, until: when the record was refused; `until` is exclusive.
        ids: of the letters.
    """

    stage: str | None = None
    sqlstate: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: Sequence[int] | None = None

    def parameters(self) -> dict[str, Any]:
        """For the statements of dead_letters_sql.py."""
        return {
            "stage": self.stage,
            "sqlstate": self.sqlstate,
            "reason": self.reason,
            "since": self.since,
            "until": self.until,
            "ids": None if self.ids is None else list(self.ids),
        }

"""What `ingest check` says: one line for each thing it looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line.

    Attributes:
        ok: nothing needs doing.
        what: the thing that was looked at.
        message: how it is, or what to do.
    """

    ok: bool
    what: str
    message: str

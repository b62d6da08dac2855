"""The lines of `ingest check`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line.

    Attributes:
        ok: nothing needs doing.
        what: the topic, server, table or right that was checked.
        message: its state, or what to do.
    """

    ok: bool
    what: str
    message: str

"""The lines of `ingest check`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A line.

    Attributes:
        ok: nothing needs doing.
        what: the topic, server, table or right.
        message: its state, or the remedy.
    """

    ok: bool
    what: str
    message: str

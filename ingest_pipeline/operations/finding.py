"""The lines of `ingest check`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A line: the state of a topic, server, table or right, or the remedy where something needs doing."""

    ok: bool
    what: str
    message: str

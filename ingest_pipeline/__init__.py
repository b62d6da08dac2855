"""Kafka topics into PostgreSQL tables, exactly once, in micro-batches run by Dagster.

The folders are the outside systems: ``kafka``, ``postgres``, ``orchestration`` (Dagster). ``core`` is plain
Python and knows none of them. A new stream is added in ``streams.py``; ``definitions.py`` is what Dagster loads.
Another project builds its own: ``from ingest_pipeline import Stream, build_definitions``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.fields import AsJson as AsJson
    from .core.stream import Stream as Stream
    from .orchestration.build import build_definitions as build_definitions

__all__ = ["AsJson", "Stream", "build_definitions"]
_WHERE = {
    "AsJson": ".core.fields",
    "Stream": ".core.stream",
    "build_definitions": ".orchestration.build",
}


def __getattr__(name: str) -> Any:
    """Found when asked for: nothing of Dagster is imported for a command that does without it."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name], __name__), name)

"""Declares streams to the commands of a test, as INGEST_STREAMS does."""

import sys
from collections.abc import Iterable
from types import ModuleType

import pytest

from ingest_pipeline.core.stream import Stream

_MODULE = "declared_streams"


def declare(patch: pytest.MonkeyPatch, streams: Iterable[Stream]) -> None:
    """Let INGEST_STREAMS name these streams."""
    module = ModuleType(_MODULE)
    module.STREAMS = list(streams)  # type: ignore[attr-defined]
    patch.setitem(sys.modules, _MODULE, module)
    patch.setenv("INGEST_STREAMS", f"{_MODULE}:STREAMS")

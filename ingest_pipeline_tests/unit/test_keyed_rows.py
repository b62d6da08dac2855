"""The rows of a batch that decide about their keys."""

from __future__ import annotations

import msgspec
import pytest

from ingest_pipeline import Stream
from ingest_pipeline.core.keyed_rows import KeyedRows
from ingest_pipeline.core.record import EventRow


class Level(msgspec.Struct):
    site: str
    number: int
    version: int = 0


@pytest.mark.parametrize("only_newer", ["", "version"])
@pytest.mark.parametrize("key", [("number",), ("site", "number")])
def test_rows_are_written_in_the_order_of_their_keys(key: tuple[str, ...], only_newer: str) -> None:
    rows: list[EventRow] = [(1, 0, offset, None, "a", number, 0) for offset, number in enumerate([30, 4, 100, 4])]
    latest = KeyedRows(Stream("level", Level, key=key, only_newer=only_newer)).latest(rows).latest
    assert [(rows[i][5], i) for i in latest] == [(4, 3), (30, 0), (100, 2)]

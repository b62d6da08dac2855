"""A stream of several tables, on the in-memory ledger and on PostgreSQL."""

from __future__ import annotations

from typing import Any

import msgspec

from ingest_pipeline.core.route import Route
from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.contract.stream_worlds import StreamWorld


class Event(msgspec.Struct):
    kind: str
    count: int


class Click(Event):
    url: str


TABLES: dict[str, Any] = {"click": ("clicks", Click), "tap": ("clicks", Click), "view": "views"}
STREAM = Stream("event", Event, route=Route("kind", TABLES))
SKIPPING = Stream("event", Event, route=Route("kind", TABLES, others="skip"))
KEEPING = Stream("event", Event, table="rest", route=Route("kind", TABLES, others="table"))
NO_TABLE = "no table for this text - at `$.kind`"


def click(count: int, kind: str = "click") -> bytes:
    """The table refuses counts below 0 and drops counts above 99."""
    return msgspec.json.encode({"kind": kind, "count": count, "url": "u"})


def view(count: int, kind: str = "view") -> bytes:
    return msgspec.json.encode({"kind": kind, "count": count})


class RouteWorld(StreamWorld):
    def __init__(self, kind: str, url: str, stream: Stream) -> None:
        super().__init__(kind, url, stream)
        self.check("not_negative", "count >= 0", lambda row: row[5] >= 0)
        self.drop("new.count > 99", lambda row: row[5] > 99)

    def rows(self) -> list[tuple[str, int, int]]:
        """(table, offset, count)."""
        names = [table.table for table in self.stream.tables]
        if self.in_memory:
            return sorted((names[row[-1]], row[2], row[5]) for row in self.table.rows.values())
        return sorted((name, *row) for name in names for row in self.sql(f"SELECT kafka_offset, count FROM {name}"))

    def plant_view(self, offset: int) -> None:
        """Put a row into the table behind the ledger's back."""
        if self.in_memory:
            self.table.rows[1, 0, offset] = (1, 0, offset, None, "view", 1, 1)
        else:
            columns = "kafka_incarnation, kafka_partition, kafka_offset, kind, count"
            self.sql(f"INSERT INTO views ({columns}) VALUES (1, 0, %s, 'view', 1)", offset)

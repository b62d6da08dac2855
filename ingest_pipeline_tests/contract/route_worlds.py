"""A stream of several tables, on the in-memory ledger and on PostgreSQL."""

from __future__ import annotations

from typing import Any

import msgspec

from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.ledger import Replayed
from ingest_pipeline.core.record import NextOffset, Position
from ingest_pipeline.core.route import Route
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.decoders import decoder_of
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.testing import Fault, MemoryDeadLetters
from ingest_pipeline_tests.contract.stream_worlds import StreamWorld
from ingest_pipeline_tests.samples import make_batch, message


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
        if self.in_memory:
            self.memory.check("event", "not_negative", lambda row: row[5] >= 0)
            self.memory.drop("event", lambda row: row[5] > 99)
            return
        self.sql("""
            CREATE FUNCTION drop_large() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF new.count > 99 THEN RETURN NULL; END IF; RETURN new; END $$""")
        for table in stream.tables:
            self.sql(f"""
                ALTER TABLE {table.table} ADD CONSTRAINT not_negative CHECK (count >= 0);
                CREATE TRIGGER drop_large BEFORE INSERT ON {table.table}
                FOR EACH ROW EXECUTE FUNCTION drop_large()""")

    def change_route(self, route: Route) -> None:
        """Redrive and replay by this route. The run goes on with the earlier one."""
        self.stream = Stream("event", Event, route=route)
        self.decode = decoder_of(self.stream, NaiveTimestamps.UTC, lambda: None).decode  # type: ignore[arg-type, return-value]
        if self.in_memory:
            self.letters = MemoryDeadLetters(self.memory, self.stream)
        else:
            self.letters = DeadLetters(self.database, self.stream)

    def replay(self, *values: bytes) -> Replayed:
        """Read all records again."""
        start = {0: Position(0, 1, NextOffset(0))}
        records: list[Any] = [message(0, n, value) for n, value in enumerate(values)]
        return self.missing.store(make_batch(start, records, stream=self.stream, decode=self.decode))

    def rows(self) -> list[tuple[str, int, int]]:
        """(table, offset, count)."""
        names = [table.table for table in self.stream.tables]
        if self.in_memory:
            return sorted((names[row[-1]], row[2], row[5]) for row in self.table.rows.values())
        return sorted((name, *row) for name in names for row in self.sql(f"SELECT kafka_offset, count FROM {name}"))

    def reasons(self) -> dict[int, str]:
        return {offset: reason for offset, _, reason in self.refused()}

    def allow_negative(self) -> None:
        if self.in_memory:
            self.drop_check("not_negative")
        else:
            for table in self.stream.tables:
                self.sql(f"ALTER TABLE {table.table} DROP CONSTRAINT not_negative")

    def delete(self, offset: int) -> None:
        if self.in_memory:
            del self.table.rows[1, 0, offset]
        else:
            for table in self.stream.tables:
                self.sql(f"DELETE FROM {table.table} WHERE kafka_offset = %s", offset)

    def plant_view(self, offset: int) -> None:
        """Put a row into the table behind the ledger's back."""
        if self.in_memory:
            self.table.rows[1, 0, offset] = (1, 0, offset, None, "view", 1, 1)
        else:
            columns = "kafka_incarnation, kafka_partition, kafka_offset, kind, count"
            self.sql(f"INSERT INTO views ({columns}) VALUES (1, 0, %s, 'view', 1)", offset)

    def break_commit(self) -> None:
        """The session ends before the next COMMIT."""
        if self.in_memory:
            self.memory.script(Fault.BEFORE_COMMIT)
            return
        connection = self.session.connection.driver_connection
        commit = connection.commit

        def end_first() -> None:
            self.sql("SELECT pg_terminate_backend(%s, 5000)", connection.info.backend_pid)
            commit()

        connection.commit = end_first

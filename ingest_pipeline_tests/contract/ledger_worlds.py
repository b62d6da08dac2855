"""The stream of readings on the ledgers that one contract suite runs on."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from ingest_pipeline.core.clock import SystemClock
from ingest_pipeline.core.ledger import Holder
from ingest_pipeline.core.ledger_ports import Ledgers
from ingest_pipeline.core.ownership import take_ownership
from ingest_pipeline.core.record import Batch, EventRow, OwnerRequests
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres.ledgers import PostgresLedgers
from ingest_pipeline.testing import MemoryLedgers
from ingest_pipeline_tests.contract.stream_worlds import StreamWorld, counters, url_of
from ingest_pipeline_tests.samples import READING

Key = tuple[int, int]
CONSTRAINT = "above_zero_kelvin"
COLDEST = -273.15
DROPPED = "dropped"
"""The device whose rows a trigger drops once `drop_rows` was called."""


class LedgerWorld(StreamWorld):
    """Two partitions of readings, whose table refuses readings at absolute zero."""

    def __init__(self, kind: str, url: str) -> None:
        super().__init__(kind, url, READING, partitions=(0, 1))
        self.check(CONSTRAINT, f"temperature > {COLDEST}", lambda row: row[5] > COLDEST)

    def ledgers(self, *streams: Stream) -> Ledgers:
        return MemoryLedgers(self.memory, streams) if self.in_memory else PostgresLedgers(self.database, streams)

    def free(self, session: Any) -> None:
        """Take the session's locks from it without its noticing."""
        if self.in_memory:
            self.memory.free(session.connection.backend)
        else:
            session.connection.driver_connection.execute("SELECT pg_advisory_unlock_all()")
            session.connection.driver_connection.commit()

    def plant(self, row: EventRow) -> None:
        """Put a row into the table behind the ledger's back."""
        if self.in_memory:
            self.table.rows[row[0], row[1], row[2]] = row
        else:
            self.sql(
                "INSERT INTO reading (kafka_incarnation, kafka_partition, kafka_offset, device_id, temperature,"
                " event_time) VALUES (%s, %s, %s, %s, %s, %s)",
                *row[:3],
                *row[4:],
            )

    def drop_rows(self) -> None:
        """From now on a trigger drops rows of the device DROPPED."""
        self.drop(f"new.device_id = '{DROPPED}'", lambda row: row[4] == DROPPED)

    def keep_rows(self) -> None:
        """The trigger is dropped."""
        if self.in_memory:
            self.memory.drop(READING.name, lambda row: False)
        else:
            self.sql("DROP FUNCTION drop_row CASCADE")

    def rewind(self) -> None:
        """Set positions and counters back to the beginning. Rows and dead letters stay."""
        if not self.in_memory:
            self.sql(
                'UPDATE ingest.position SET next_offset = first_offset, "rows" = 0, dead_letters = 0, skipped = 0,'
                " absent = 0"
            )
            return
        for partition, position in self.table.positions.items():
            self.table.positions[partition] = replace(
                position, next_offset=position.first_offset, rows=0, dead_letters=0, skipped=0, absent=0
            )

    def rows(self) -> dict[Key, str]:
        """(partition, offset) → device_id, in the order of the key."""
        if self.in_memory:
            return {(p, o): row[4] for (_, p, o), row in sorted(self.table.rows.items())}
        rows = self.sql("SELECT kafka_partition, kafka_offset, device_id FROM reading ORDER BY 1, 2")
        return {(p, o): device for p, o, device in rows}

    def letters(self) -> dict[Key, tuple[str, str, str | None, bytes | None]]:
        """(partition, offset) → (stage, reason, sqlstate, value)."""
        if self.in_memory:
            kept = sorted(self.table.dead_letters.items())
            return {(p, o): (row.stage, row.reason, row.sqlstate, row.value) for (_, p, o), row in kept}
        letters = self.sql(
            "SELECT kafka_partition, kafka_offset, stage, reason, sqlstate, value FROM ingest.dead_letter ORDER BY 1, 2"
        )
        return {(p, o): tuple(rest) for p, o, *rest in letters}


def own_within(session: Any, partitions: Collection[int], wait_seconds: float, **options: Any) -> Mapping[int, Holder]:
    """Own all partitions in time, as a run does. Returns the owners of partitions that were not taken."""
    others = take_ownership({session: partitions}, SystemClock(), exact=True, wait_seconds=wait_seconds, **options)
    return others.get(session, {})


def requests_to(session: Any) -> OwnerRequests:
    """The requests in the answer to a heartbeat."""
    requests: OwnerRequests = session.connection.heartbeat()[READING.name]
    return requests


def stale(batch: Batch, partition: int) -> Batch:
    """The same batch, expecting another position of one partition than the ledger holds."""
    advance = batch.advances[partition]
    return replace(batch, advances={**batch.advances, partition: replace(advance, expected=advance.expected - 1)})


@contextmanager
def ledger_world(request: pytest.FixtureRequest) -> Iterator[LedgerWorld]:
    """The world of a fixture's parameter. Two partitions have begun at offset 0."""
    made = LedgerWorld(request.param, url_of(request))
    yield made
    made.close()


def untouched(world: LedgerWorld) -> bool:
    return not world.rows() and not world.letters() and counters(world, 0) == counters(world, 1) == (0, 0, 0, 0, 0)

"""The ledgers of several streams, read by a few statements in one transaction."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from ..core.errors import IngestError, LedgerConflict
from ..core.ledger import Account, LedgerSnapshot, LetterCount, Owners, StreamState
from ..core.ledger_ports import Ledgers
from ..core.loss import Loss, noted_loss
from ..core.record import StoredPosition
from ..core.stream import Stream
from . import ledger_sql, locks, schema
from .database import Database


class PostgresLedgers(Ledgers):
    def __init__(self, database: Database, streams: Sequence[Stream]) -> None:
        self._database, self._streams = database, streams
        self._names = [stream.name for stream in streams]
        self._described = f"stream {self._names[0]}" if len(streams) == 1 else f"{len(streams)} streams"

    def prepare(self) -> None:
        schema.prepare(self._database, self._streams)

    def snapshots(self) -> dict[str, LedgerSnapshot | IngestError]:
        with self._database.connect(f"reading the ledger of {self._described}") as connection:
            if not schema.has_ledger(connection, self._database):
                return {name: LedgerSnapshot({}, StreamState(), [], Owners({}, set())) for name in self._names}
            positions = read_positions(connection, self._database, self._names)
            states = read_states(connection, self._database, self._names)
            losses = read_losses(connection, self._database, self._names)
            readable = {name: stored for name, stored in positions.items() if not isinstance(stored, IngestError)}
            owners = read_owners(connection, self._database, readable)
        snapshots: dict[str, LedgerSnapshot | IngestError] = {}
        for name, stored in positions.items():
            if isinstance(stored, IngestError):
                snapshots[name] = stored
            else:
                snapshots[name] = LedgerSnapshot(stored, states[name], losses[name], owners[name])
        return snapshots

    def accounting(self) -> dict[str, list[Account]]:
        return {name: [Account(**row) for row in rows] for name, rows in self._rows(ledger_sql.ACCOUNTING).items()}

    def open_letters(self) -> dict[str, list[LetterCount]]:
        rows = self._rows(ledger_sql.OPEN_LETTERS)
        return {name: [LetterCount(**row) for row in letters] for name, letters in rows.items()}

    def _rows(self, statement: str) -> dict[str, list[dict[str, Any]]]:
        """Stream → the statement's rows, as values by column."""
        by_stream: dict[str, list[dict[str, Any]]] = {name: [] for name in self._names}
        with self._database.connect(f"reading the ledger of {self._described}") as connection:
            if schema.has_ledger(connection, self._database):
                for name, values in _values_by_stream(connection, self._database, statement, self._names):
                    by_stream[name].append(values)
        return by_stream

    def note_ticks(self, streams: Collection[str]) -> None:
        self._change(ledger_sql.TICK, [{"stream": name} for name in sorted(streams)])

    def note_waiting(self, waiting: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
        as_json = {name: {str(p): list(values) for p, values in of.items()} for name, of in sorted(waiting.items())}
        self._change(ledger_sql.WAITING, [{"stream": name, "waiting": json.dumps(of)} for name, of in as_json.items()])

    def _change(self, statement: str, parameters: list[dict[str, str]]) -> None:
        with self._database.connect(f"changing the ledger of {self._described}") as connection:
            connection.execute(self._database.schemas.sql(statement), parameters)


def read_positions(
    connection: Connection, database: Database, streams: Sequence[str]
) -> dict[str, dict[int, StoredPosition] | LedgerConflict]:
    """Stream → partition → position. LedgerConflict for a negative offset: an earlier version stored -1001 while a
    partition's leader was away."""
    positions: dict[str, dict[int, StoredPosition] | LedgerConflict] = {name: {} for name in streams}
    for name, values in _values_by_stream(connection, database, ledger_sql.POSITIONS, streams):
        stored, position = positions[name], StoredPosition(**values)
        if isinstance(stored, LedgerConflict):
            continue
        if position.first_offset < 0:
            positions[name] = _no_offset(name, position, database)
        else:
            stored[position.partition] = position
    return positions


def read_states(connection: Connection, database: Database, streams: Sequence[str]) -> dict[str, StreamState]:
    states = {name: StreamState() for name in streams}
    for name, values in _values_by_stream(connection, database, ledger_sql.STATE, streams):
        states[name] = StreamState(**values)
    return states


def read_losses(connection: Connection, database: Database, streams: Sequence[str]) -> dict[str, list[Loss]]:
    losses: defaultdict[str, list[Loss]] = defaultdict(list)
    for name, values in _values_by_stream(connection, database, ledger_sql.LOSSES, streams):
        losses[name].append(noted_loss(**values))
    return {name: losses[name] for name in streams}


def read_owners(connection: Connection, database: Database, partitions: dict[str, Any]) -> dict[str, Owners]:
    """Stream → owners of its partitions."""
    oid = locks.position_table_oid(connection, database.schemas.ledger)
    asked = [(locks.LockKeys(oid, name), list(numbers)) for name, numbers in partitions.items()]
    holders = locks.holders(connection, asked, database.copy_looks)
    present = locks.present_runs(connection)
    return {name: Owners(held, present) for name, held in zip(partitions, holders, strict=True)}


def _values_by_stream(
    connection: Connection, database: Database, statement: str, streams: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(stream, the row's other values by column)."""
    for row in connection.execute(database.schemas.sql(statement), {"streams": list(streams)}):
        values = dict(row._mapping)
        yield values.pop("stream"), values


def _no_offset(stream: str, position: StoredPosition, database: Database) -> LedgerConflict:
    return LedgerConflict(
        f"stream {stream}, partition {position.partition}: its position begins at {position.first_offset},"
        " which is no offset: an earlier version stored it while the partition's leader was away. If the"
        f" table has no row of the partition, delete this row of {database.schemas.ledger}.position:"
        " the partition begins at its beginning. Else restore the ledger and the table from one backup",
        stream=stream,
        partition=position.partition,
    )

"""Lists, redrives and discards dead letters."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Table, TextClause
from sqlalchemy.dialects.postgresql import insert

from ..core.errors import RecordRefused, RefusalStage
from ..core.ledger import LetterFilter, Redriven, RedriveOutcome, Refusals
from ..core.many import table_rows
from ..core.record import MAX_MS, MIN_MS
from ..core.record_keys import check_record_key
from ..core.rows import DEFAULT_RULES, Decode, RecordRules, decode_or_delete
from ..core.stream import COORDINATES, Stream
from ..core.timestamps import EPOCH
from . import dead_letters_sql as sql
from . import schema
from .database import Database
from .errors import mapped_errors
from .inserts import ExistingRows
from .keyed_redrive import KeyedRedrive
from .obsolete_letters import SUPERSEDED
from .session_settings import LONG_STATEMENT_SECONDS
from .statements import first_row
from .tables import event_table

CHUNK = 200
"""Letters of a page, and maximum letters of a redrive's transaction."""
CHUNK_BYTES = 16 << 20
"""Maximum bytes of the letters in one transaction. A larger letter gets a transaction of its own."""
CLOSED_CHUNK = 5000
"""Maximum letters discarded or purged by a transaction."""
TOP_REASONS_OF = 10_000
"""`top_reasons` counts the reasons of this many newest open letters."""
_COMMANDS = 10
_REDRIVEN = (RedriveOutcome.STORED, RedriveOutcome.PRESENT)


class DeadLetters:
    def __init__(
        self,
        database: Database,
        stream: Stream,
        *,
        chunk: int = CHUNK,
        chunk_bytes: int = CHUNK_BYTES,
        closed_chunk: int = CLOSED_CHUNK,
    ) -> None:
        self._database, self._stream = database, stream
        self._chunk, self._chunk_bytes, self._closed_chunk = chunk, chunk_bytes, closed_chunk
        self._tables: list[Table] = [event_table(table, database.schemas.events) for table in stream.tables]
        self._keyed = KeyedRedrive(stream, self._tables[0], database.schemas) if stream.key else None
        self._existing: list[ExistingRows] = []
        self._doing = f"dead letters of stream {stream.name}"

    def count_by_reason(self, letter_filter: LetterFilter) -> list[Row[Any]]:
        """(stage, reason, sqlstate, letters, first_id, newest) of open letters, most frequent first. Reads all open
        letters."""
        with self._database.connect(self._doing, LONG_STATEMENT_SECONDS) as connection:
            return list(connection.execute(self._sql(sql.COUNTS), self._parameters(letter_filter)).all())

    def top_reasons(self, limit: int, newest: int = TOP_REASONS_OF) -> list[Row[Any]]:
        """(reason, letters) of the newest open letters, most frequent first."""
        with self._database.connect(self._doing) as connection:
            parameters = {"stream": self._stream.name, "newest": newest, "limit": limit}
            return list(connection.execute(self._sql(sql.TOP_REASONS), parameters).all())

    def refusals(self, records: int, acknowledged_at: datetime | None) -> Refusals:
        """The refused ones among the last `records` records. Refusals up to `acknowledged_at` do not count."""
        with self._database.connect(self._doing) as connection:
            parameters = {"stream": self._stream.name, "records": records, "acknowledged_at": acknowledged_at}
            refusals = sql.REFUSALS if self._stream.finds_by_coordinates else sql.REFUSALS_BY_OFFSET
            statement = self._database.schemas.sql(refusals, self._stream, first_row=first_row(self._stream))
            row = connection.execute(statement, parameters).one()
        return Refusals(row.newest_at, row.records, row.refused)

    def page(self, letter_filter: LetterFilter, limit: int = CHUNK) -> list[Row[Any]]:
        """Open letters by id, without key, value and headers."""
        with self._database.connect(self._doing, LONG_STATEMENT_SECONDS) as connection:
            parameters = {**self._parameters(letter_filter), "limit": limit}
            return list(connection.execute(self._sql(sql.PAGE), parameters).all())

    def how_to_fetch(self, letter_filter: LetterFilter) -> str:
        """Commands to fetch the first truncated open letters from Kafka again. "" if all of them are lines of files, or
        records of an earlier topic."""
        if self._stream.deletes or not self._stream.coordinates:
            return "a replay refuses this stream: discard the ones cut short, or store their rows by hand"
        with self._database.connect(self._doing, LONG_STATEMENT_SECONDS) as connection:
            parameters = {**self._parameters(letter_filter), "limit": _COMMANDS}
            truncated = connection.execute(self._sql(sql.TRUNCATED), parameters).all()
        lines = (
            f"--partition {partition} --from-offset {offset} --to-offset {offset + 1}"
            for partition, offset in truncated
        )
        commands = [f"  ingest replay {self._stream.name} {line}" for line in lines]
        if not commands:
            return ""
        return "\n".join(["of the ones cut short Kafka may still have the whole value:", *commands])

    def show(self, letter_id: int, preview_bytes: int) -> Row[Any] | None:
        """One letter of any status, with the first bytes of key and value. `key_bytes` and `kept_bytes` count the
        stored bytes."""
        with self._database.connect(self._doing) as connection:
            parameters = {"stream": self._stream.name, "id": letter_id, "preview": preview_bytes}
            return connection.execute(self._sql(sql.SHOW), parameters).one_or_none()

    def discard(self, letter_filter: LetterFilter, observe: Callable[[int], None] = lambda discarded: None) -> int:
        """Mark the open letters as `discarded`, without storing rows. Discarded letters stay in the table until a
        purge.

        Args:
            observe: called after each transaction with the committed sum so far.
        """
        parameters = {**self._parameters(letter_filter), "limit": self._closed_chunk}
        with self._database.connect(self._doing, LONG_STATEMENT_SECONDS) as connection:
            newest = connection.execute(self._sql(sql.NEWEST), parameters).scalar()
        total, after = 0, 0
        while newest is not None:
            with self._database.connect(self._doing, LONG_STATEMENT_SECONDS) as connection:
                ids = connection.execute(self._sql(sql.NEXT_IDS), {**parameters, "after": after, "newest": newest})
                if not (chunk := list(ids.scalars())):
                    break
                total += connection.execute(self._sql(sql.DISCARD), {"ids": chunk}).rowcount
            after = chunk[-1]
            observe(total)
        return total

    def redrive(
        self,
        letter_filter: LetterFilter,
        decode: Decode,
        rules: RecordRules = DEFAULT_RULES,
        *,
        dry_run: bool = False,
        observe: Callable[[Redriven], None] = lambda redriven: None,
    ) -> Redriven:
        """Decode every open letter again and store its row under the original coordinates.

        A letter's row and its new status commit together, so a crash or a second redrive changes nothing. A letter is
        discarded if a newer record wrote or deleted the row of its key.

        Args:
            dry_run: try everything, commit nothing.
            observe: called after each transaction with the sum so far.

        Raises:
            SchemaMismatch, DatabaseUnavailable, StopStream: committed transactions stay committed.
        """
        total, after = Redriven(), 0
        while True:
            done, last = self._redrive_chunk(letter_filter, decode, rules, after=after, dry_run=dry_run)
            if last is None:
                return total
            total, after = total + done, last
            observe(total)

    def _redrive_chunk(
        self, letter_filter: LetterFilter, decode: Decode, rules: RecordRules, *, after: int, dry_run: bool
    ) -> tuple[Redriven, int | None]:
        with self._database.connect(self._doing, LONG_STATEMENT_SECONDS) as connection:
            parameters = {**self._parameters(letter_filter), "after": after, "limit": self._chunk}
            schema.hold_table(connection, self._stream, self._database)
            ids = within_bytes(connection.execute(self._sql(sql.NEXT_SIZES), parameters).all(), self._chunk_bytes)
            if not self._stream.coordinates:
                schemas = self._database.schemas
                self._existing = [ExistingRows(connection, table, schemas) for table in self._stream.tables]
            letters = connection.execute(self._sql(sql.LOCKED), {"ids": ids}).all() if ids else []
            outcomes = [(letter.id, *self._redrive_one(connection, letter, decode, rules)) for letter in letters]
            self._settle(connection, outcomes)
            if dry_run:
                connection.rollback()
        return Redriven(**Counter(outcome.value for _, outcome, _ in outcomes)), ids[-1] if ids else None

    def _redrive_one(
        self, connection: Connection, letter: Row[Any], decode: Decode, rules: RecordRules
    ) -> tuple[RedriveOutcome, RecordRefused | None]:
        if letter.truncated:
            return RedriveOutcome.TRUNCATED, None
        try:
            columns = self._stream.record_columns
            parts = columns.of_letter(letter.key, letter.headers)
            value = columns.framed(letter.value, letter.headers)
            key = columns.framed_key(letter.key, letter.headers)
            values, deleted = decode_or_delete(value, lambda: key, decode, rules)
            number: Any = 0
            if self._stream.route is not None:
                values, number = values[:-1], values[-1]
            rows = self._rows(letter, (*parts, *values), number)
            with mapped_errors(self._doing, of_rows=True), connection.begin_nested():
                if self._existing:
                    return self._existing[number].redrive(connection, (*parts, *values)), None
                if self._keyed is None:
                    return self._store(connection, letter, rows, self._tables[number]), None
                if rules.record_keys is not None:
                    if deleted:
                        return self._keyed.delete(connection, rows[0], rules.record_keys.values, key), None
                    check_record_key(self._stream, values, key, rules.record_keys)
                    if not connection.execute(self._sql(sql.IS_OPEN), {"id": letter.id}).scalar():
                        return RedriveOutcome.SUPERSEDED, None  # by a deletion of this chunk
                return self._keyed.store(connection, rows[0]), None
        except RecordRefused as refused:
            return RedriveOutcome.REFUSED, refused

    def _store(
        self, connection: Connection, letter: Row[Any], rows: list[dict[str, Any]], table: Table
    ) -> RedriveOutcome:
        elsewhere = self._stream.route or self._stream.partition_by  # in another table, or with another event_time
        if elsewhere and self._is_present(connection, letter):
            return RedriveOutcome.PRESENT
        stored = connection.execute(
            insert(table).on_conflict_do_nothing(constraint=table.primary_key).returning(table.c.kafka_offset),
            rows if len(rows) > 1 else rows[0],
        ).first()
        if not self._is_present(connection, letter):  # also a trigger that deletes or moves a stored row
            raise RecordRefused("a trigger of the table drops the row", stage=RefusalStage.INSERT)
        return RedriveOutcome.PRESENT if stored is None else RedriveOutcome.STORED

    def _is_present(self, connection: Connection, letter: Row[Any]) -> bool:
        coordinates = {name: getattr(letter, name) for name in COORDINATES}
        statement = self._database.schemas.sql(sql.PRESENT, self._stream)
        return connection.execute(statement, coordinates).first() is not None

    def _rows(self, letter: Row[Any], values: tuple[Any, ...], table: int) -> list[dict[str, Any]]:
        ms = letter.kafka_timestamp_ms
        in_range = ms is not None and MIN_MS <= ms <= MAX_MS
        time = EPOCH + timedelta(milliseconds=ms) if in_range else None
        record = (letter.kafka_incarnation, letter.kafka_partition, letter.kafka_offset, time, *values)
        rows = table_rows([record]) if self._stream.many else [record]
        return [dict(zip(self._stream.tables[table].columns, row, strict=True)) for row in rows]

    def _settle(
        self, connection: Connection, outcomes: Sequence[tuple[int, RedriveOutcome, RecordRefused | None]]
    ) -> None:
        """Update redriven letters by one statement, in order, so the counters of settled letters change once."""
        if redriven := [letter_id for letter_id, outcome, _ in outcomes if outcome in _REDRIVEN]:
            connection.execute(self._sql(sql.REDRIVEN), {"ids": redriven})
        if superseded := [letter_id for letter_id, outcome, _ in outcomes if outcome is RedriveOutcome.SUPERSEDED]:
            connection.execute(self._sql(sql.SUPERSEDED), {"ids": superseded, "superseded": SUPERSEDED})
        refusals = [(letter_id, refused) for letter_id, _, refused in outcomes if refused is not None]
        if refusals:
            parameters = {
                "ids": [letter_id for letter_id, _ in refusals],
                "stages": [refused.stage for _, refused in refusals],
                "reasons": [refused.message for _, refused in refusals],
                "sqlstates": [refused.sqlstate for _, refused in refusals],
            }
            connection.execute(self._sql(sql.REFUSED), parameters)

    def _parameters(self, letter_filter: LetterFilter) -> dict[str, Any]:
        return {"stream": self._stream.name, **asdict(letter_filter)}

    def _sql(self, statement: str) -> TextClause:
        return sql.rendered(statement, self._database.schemas)


def within_bytes(sizes: Sequence[Row[Any]], limit: int) -> list[int]:
    """The first ids of (id, bytes) with at most this many bytes in total. At least one id."""
    ids: list[int] = []
    total = 0
    for row in sizes:
        total += row.bytes
        if ids and total > limit:
            break
        ids.append(row.id)
    return ids

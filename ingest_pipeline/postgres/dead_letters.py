"""Dead letters after the fact: listed, decoded again with today's code, or discarded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, Table, select, text
from sqlalchemy.dialects.postgresql import insert

from ..core.errors import RecordRefused
from ..core.record import MAX_MS, MIN_MS, STAMP
from ..core.rows import DEFAULT_RULES, Decode, RecordRules, decode_one
from ..core.stream import COORDINATES, Stream
from . import schema
from .engine import Database, in_text
from .errors import mapped_errors
from .tables import event_table

CHUNK = 200
"""Letters decided in one transaction."""
_COMMANDS = 10
LetterDecode = Callable[[bytes | None], tuple[object, ...]]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which open letters are meant; what is None does not narrow.

    Attributes:
        reason: a part of the reason's text.
        since, until: when the record was refused; `until` is exclusive.
        ids: of the letters.
    """

    stage: str | None = None
    sqlstate: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of the letters that were tried.

    Attributes:
        stored: a row was written.
        present: the row was there already; counts as redriven.
        refused: failed again, stays open.
        truncated: the stored value is not whole, so it cannot be decoded; stays open.
    """

    stored: int = 0
    present: int = 0
    refused: int = 0
    truncated: int = 0

    @property
    def tried(self) -> int:
        return self.stored + self.present + self.refused + self.truncated


class DeadLetters:
    """The dead letters of one stream."""

    def __init__(self, database: Database, stream: Stream) -> None:
        self._database, self._stream = database, stream
        self._table: Table = event_table(stream, database.schemas.events)
        self._doing = f"dead letters of stream {stream.name}"

    def count_by_reason(self, wanted: LetterFilter) -> list[Row[Any]]:
        """(stage, reason, sqlstate, letters, first_id, newest) of the open ones, most first."""
        with self._database.connect(self._doing) as connection:
            return list(connection.execute(self._sql(_COUNTS), self._parameters(wanted)).all())

    def page(self, wanted: LetterFilter, after_id: int = 0, limit: int = CHUNK) -> list[Row[Any]]:
        """Open letters by id, without key, value and headers."""
        with self._database.connect(self._doing) as connection:
            parameters = {**self._parameters(wanted), "after": after_id, "limit": limit}
            return list(connection.execute(self._sql(_PAGE), parameters).all())

    def how_to_fetch(self, wanted: LetterFilter) -> str:
        """The commands that fetch again what of open letters is not kept whole; the first ones."""
        with self._database.connect(self._doing) as connection:
            parameters = {**self._parameters(wanted), "limit": _COMMANDS}
            found = connection.execute(self._sql(_TRUNCATED), parameters).all()
        lines = (f"--partition {partition} --from-offset {at} --to-offset {at + 1}" for partition, at in found)
        commands = [f"  ingest replay {self._stream.name} {line}" for line in lines]
        return "\n".join(["of the ones cut short Kafka may still have the whole value:", *commands])

    def show(self, letter_id: int) -> Row[Any] | None:
        """One letter with everything it holds, whatever its status."""
        with self._database.connect(self._doing) as connection:
            parameters = {"stream": self._stream.name, "id": letter_id}
            return connection.execute(self._sql(_SHOW), parameters).one_or_none()

    def discard(self, wanted: LetterFilter) -> int:
        """Close letters without a row; how many. They stay in the table as `discarded`."""
        with self._database.connect(self._doing) as connection:
            return connection.execute(self._sql(_DISCARD), self._parameters(wanted)).rowcount

    def redrive(
        self,
        wanted: LetterFilter,
        decode: Decode,
        rules: RecordRules = DEFAULT_RULES,
        *,
        dry_run: bool = False,
        observe: Callable[[Redriven], None] = lambda redriven: None,
    ) -> Redriven:
        """Decode every open letter again and move it to the table under its original coordinates.

        A letter's row and its new status commit together, so a second redrive or a crash in between changes nothing.

        Args:
            rules: those of the drain.
            dry_run: try everything, commit nothing.
            observe: called after each CHUNK with the sum so far.

        Raises:
            SchemaMismatch, DatabaseUnavailable, StopStream: what was done before stays done.
        """
        total, after = Redriven(), 0
        while True:
            done, last = self._redrive_chunk(
                wanted, partial(decode_one, decode=decode, max_bytes=rules.max_bytes), after, dry_run
            )
            if last is None:
                return total
            total, after = _sum(total, done), last
            observe(total)

    def _redrive_chunk(
        self, wanted: LetterFilter, decode: LetterDecode, after: int, dry_run: bool
    ) -> tuple[Redriven, int | None]:
        done = Redriven()
        with self._database.connect(self._doing) as connection:
            parameters = {**self._parameters(wanted), "after": after, "limit": CHUNK}
            schema.hold_table(connection, self._stream, self._database)
            letters = connection.execute(self._sql(_LOCKED), parameters).all()
            for letter in letters:
                outcome, refused = self._redrive_one(connection, letter, decode)
                done = replace(done, **{outcome: getattr(done, outcome) + 1})
                self._settle(connection, letter.id, outcome, refused)
            if dry_run:
                connection.rollback()
        return done, letters[-1].id if letters else None

    def _redrive_one(
        self, connection: Connection, letter: Row[Any], decode: LetterDecode
    ) -> tuple[str, RecordRefused | None]:
        if letter.truncated:
            return "truncated", None
        try:
            parts = self._stream.parts.of_letter(letter.key, letter.headers)
            values = (*parts, *decode(letter.value))
            row = self._row(letter, values)
            with mapped_errors(self._doing, of_rows=True), connection.begin_nested():
                stored = connection.execute(
                    insert(self._table)
                    .on_conflict_do_nothing(constraint=self._table.primary_key)
                    .returning(self._table.c.kafka_offset),
                    row,
                ).first()
                if stored is None and not self._is_present(connection, letter):
                    raise RecordRefused("a trigger of the table drops the row", stage="insert")
        except RecordRefused as refused:
            return "refused", refused
        return ("present" if stored is None else "stored"), None

    def _is_present(self, connection: Connection, letter: Row[Any]) -> bool:
        table = self._table
        coordinates = [table.c[name] == getattr(letter, name) for name in COORDINATES]
        return connection.execute(select(1).select_from(table).where(*coordinates)).first() is not None

    def _row(self, letter: Row[Any], values: Sequence[object]) -> dict[str, object]:
        ms = letter.kafka_timestamp_ms
        known = ms is not None and MIN_MS <= ms <= MAX_MS
        return {
            "kafka_incarnation": letter.kafka_incarnation,
            "kafka_partition": letter.kafka_partition,
            "kafka_offset": letter.kafka_offset,
            "kafka_timestamp": _EPOCH + timedelta(milliseconds=ms) if known else None,
            **dict(zip(self._stream.columns[STAMP + 1 :], values, strict=True)),
        }

    def _settle(self, connection: Connection, letter_id: int, outcome: str, refused: RecordRefused | None) -> None:
        if outcome in ("stored", "present"):
            connection.execute(self._sql(_REDRIVEN), {"id": letter_id})
        elif refused is not None:
            parameters = {
                "id": letter_id,
                "stage": refused.stage,
                "reason": refused.message,
                "sqlstate": refused.sqlstate,
            }
            connection.execute(self._sql(_REFUSED), parameters)

    def _parameters(self, wanted: LetterFilter) -> dict[str, Any]:
        return {
            "stream": self._stream.name,
            "stage": wanted.stage,
            "sqlstate": wanted.sqlstate,
            "reason": wanted.reason,
            "since": wanted.since,
            "until": wanted.until,
            "ids": None if wanted.ids is None else list(wanted.ids),
        }

    def _sql(self, statement: str) -> Any:
        ledger = in_text(self._database.schemas.ledger)
        return text(statement.replace("{open}", _OPEN).replace("{ledger}", ledger))


def _sum(left: Redriven, right: Redriven) -> Redriven:
    return Redriven(
        left.stored + right.stored,
        left.present + right.present,
        left.refused + right.refused,
        left.truncated + right.truncated,
    )


_OPEN = """{ledger}.dead_letter
    WHERE stream = :stream AND status = 'open'
      AND (CAST(:stage AS text) IS NULL OR stage = :stage)
      AND (CAST(:sqlstate AS text) IS NULL OR sqlstate = :sqlstate)
      AND (CAST(:reason AS text) IS NULL OR strpos(reason, :reason) > 0)
      AND (CAST(:since AS timestamptz) IS NULL OR failed_at >= :since)
      AND (CAST(:until AS timestamptz) IS NULL OR failed_at < :until)
      AND (CAST(:ids AS bigint[]) IS NULL OR id = ANY(:ids))"""
_COUNTS = """
    SELECT stage, reason, sqlstate, count(*) AS letters, min(id) AS first_id, max(failed_at) AS newest
    FROM {open} GROUP BY 1, 2, 3 ORDER BY 4 DESC, 5"""
_PAGE = """
    SELECT id, kafka_partition, kafka_offset, failed_at, stage, reason, sqlstate, attempts, value_bytes, truncated
    FROM {open} AND id > :after ORDER BY id LIMIT :limit"""
_TRUNCATED = "SELECT kafka_partition, kafka_offset FROM {open} AND truncated ORDER BY id LIMIT :limit"
_SHOW = "SELECT * FROM {ledger}.dead_letter WHERE stream = :stream AND id = :id"
_LOCKED = """
    SELECT id, kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp_ms, key, headers, value, truncated
    FROM {open} AND id > :after ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED"""
_DISCARD = """
    UPDATE {ledger}.dead_letter SET status = 'discarded', resolved_at = now()
    WHERE id IN (SELECT id FROM {open})"""
_REDRIVEN = """
    UPDATE {ledger}.dead_letter SET status = 'redriven', resolved_at = now(), attempts = attempts + 1 WHERE id = :id"""
_REFUSED = """
    UPDATE {ledger}.dead_letter SET attempts = attempts + 1, stage = :stage, reason = :reason, sqlstate = :sqlstate
    WHERE id = :id"""

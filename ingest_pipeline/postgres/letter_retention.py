"""Purges dead letters that were settled long ago. Open letters are never purged."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, CursorResult

from ..core.stream import Stream
from . import dead_letters_sql as sql
from .database import Database
from .dead_letters import CHUNK_BYTES, CLOSED_CHUNK, within_bytes
from .session_settings import LONG_STATEMENT_SECONDS

_COUNT_SECONDS = 600


class SettledLetters:
    """The redriven and discarded letters of one stream."""

    def __init__(
        self, database: Database, stream: Stream, *, chunk: int = CLOSED_CHUNK, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        self._database, self._stream, self._chunk, self._chunk_bytes = database, stream, chunk, chunk_bytes
        self._doing = f"purging settled dead letters of stream {stream.name}"

    def expired(self, days: int) -> int:
        with self._database.connect(self._doing, LONG_STATEMENT_SECONDS) as connection:
            return int(self._execute(connection, sql.EXPIRED_COUNT, days=days).scalar_one())

    def purge(self, days: int, observe: Callable[[int], None] = lambda purged: None) -> int:
        """Delete letters settled more than `days` ago, in transactions of bounded size, and count the letters as
        purged.

        Args:
            observe: called after each transaction with the sum so far.
        """
        total = 0
        while done := self._purge_chunk(days):
            total += done
            observe(total)
        return total

    def missing(self) -> int:
        """The number of settled letters that vanished without a purge: counters minus rows. Reads the index of all
        settled letters."""
        with self._database.connect(self._doing, _COUNT_SECONDS) as connection:
            return int(self._execute(connection, sql.MISSING).scalar_one())

    def _purge_chunk(self, days: int) -> int:
        with self._database.connect(self._doing, LONG_STATEMENT_SECONDS) as connection:
            sizes = self._execute(connection, sql.EXPIRED, days=days, limit=self._chunk).all()
            if not (ids := within_bytes(sizes, self._chunk_bytes)):
                return 0
            return int(self._execute(connection, sql.PURGE, ids=ids).scalar_one())

    def _execute(self, connection: Connection, statement: str, **parameters: Any) -> CursorResult[Any]:
        rendered = sql.rendered(statement, self._database.schemas)
        return connection.execute(rendered, {"stream": self._stream.name, **parameters})

"""The streams' posted problems in the ledger. A stream's row names the process that posts its alerts."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from . import schema
from .database import Database

RENEW_SECONDS = 10
Plain: TypeAlias = Mapping[str, Any]
"""A stream's news in the form of `news.to_plain`."""
_READ = """
    SELECT stream, problems FROM {ledger}.alert
    WHERE stream = ANY(:streams) AND poster = :poster AND renewed_at > now() - make_interval(secs => :renew)"""
_CLAIM = """
    INSERT INTO {ledger}.alert AS a (stream, poster, renewed_at)
    SELECT name, :poster, now() FROM unnest(CAST(:streams AS text[])) AS name ORDER BY name
    ON CONFLICT (stream) DO UPDATE SET poster = excluded.poster, renewed_at = now()
    WHERE a.poster = excluded.poster OR EXTRACT(EPOCH FROM now() - a.renewed_at) > CAST(:lease AS float8)
    RETURNING stream, problems"""
_LOCK = """
    SELECT stream, problems FROM {ledger}.alert WHERE stream = ANY(:streams) ORDER BY stream FOR UPDATE"""
_REPLACE = """
    UPDATE {ledger}.alert SET problems = CAST(:problems AS jsonb) WHERE stream = :stream"""
_CHANGE = """
    UPDATE {ledger}.alert SET problems = (problems - CAST(:removed AS text[])) || CAST(:changed AS jsonb)
    WHERE stream = :stream AND poster = :poster"""


class AlertRows:
    """Rows of the table `alert`, on pooled connections. Every call raises the errors of `Database.connect`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, streams: Collection[str], poster: str, lease_seconds: float) -> dict[str, dict[str, Any]] | None:
        """Stream → its news, for the streams that this process may post about. None without a ledger. A process loses a
        stream that it has not claimed for `lease_seconds`."""
        with self._database.connect("reading the alerts in the ledger") as connection:
            if not schema.has_ledger(connection, self._database):
                return None
            values = {"poster": poster, "renew": RENEW_SECONDS, "lease": lease_seconds}
            own = connection.execute(self._database.schemas.sql(_READ), {**values, "streams": list(streams)})
            problems = {row.stream: row.problems for row in own}
            if others := [stream for stream in streams if stream not in problems]:
                claimed = connection.execute(self._database.schemas.sql(_CLAIM), {**values, "streams": others})
                problems |= {row.stream: row.problems for row in claimed}
            return problems

    def merge(self, news: Mapping[str, Plain], merged: Callable[[Plain, Plain], Plain]) -> dict[str, Plain]:
        """Add a process's news to the streams' rows, whichever process they name. Returns stream → news of both."""
        with self._database.connect("writing the alerts into the ledger") as connection:
            found = connection.execute(self._database.schemas.sql(_LOCK), {"streams": list(news)})
            together = {row.stream: merged(row.problems, news[row.stream]) for row in found}
            rows = [{"stream": stream, "problems": json.dumps(plain)} for stream, plain in together.items()]
            if rows:
                connection.execute(self._database.schemas.sql(_REPLACE), rows)
            return together

    def store(self, changes: Mapping[str, tuple[Plain, Plain]], poster: str) -> None:
        """Store what has changed about the process's own streams. What other processes add meanwhile stays. `changes`:
        stream → its news before and after."""
        rows = [
            {
                "stream": stream,
                "poster": poster,
                "removed": [key for key in before if key not in after],
                "changed": json.dumps({key: after[key] for key in after if before.get(key) != after[key]}),
            }
            for stream, (before, after) in sorted(changes.items())
        ]
        with self._database.connect("writing the alerts into the ledger") as connection:
            connection.execute(self._database.schemas.sql(_CHANGE), rows)

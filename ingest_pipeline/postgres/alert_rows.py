"""The streams' posted problems in the ledger. A stream's row names the process that posts its alerts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from . import schema
from .database import Database

LEASE_SECONDS = 45
"""Another process takes over a stream after this long without a look."""
RENEW_SECONDS = 10
_AGES = """
    SELECT stream, CAST(EXTRACT(EPOCH FROM now() - renewed_at) AS float8) AS age FROM {ledger}.alert
    WHERE stream = ANY(:streams)"""
_READ = """
    SELECT stream, problems FROM {ledger}.alert
    WHERE stream = ANY(:streams) AND poster = :poster AND renewed_at > now() - make_interval(secs => :renew)"""
_CLAIM = """
    INSERT INTO {ledger}.alert AS a (stream, poster, renewed_at)
    SELECT name, :poster, now() FROM unnest(CAST(:streams AS text[])) AS name ORDER BY name
    ON CONFLICT (stream) DO UPDATE SET poster = excluded.poster, renewed_at = now()
    WHERE a.poster = excluded.poster OR :takes_over AND a.renewed_at < now() - make_interval(secs => :lease)
    RETURNING stream, problems"""
_STORE = """
    UPDATE {ledger}.alert SET problems = CAST(:problems AS jsonb) WHERE stream = :stream AND poster = :poster"""


class AlertRows:
    """Rows of the table `alert`, on pooled connections. Every call raises the errors of `Database.connect`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, streams: Collection[str], poster: str, answered_seconds: float) -> dict[str, dict[str, Any]] | None:
        """Stream → its problems in the form of `news.to_plain`, for the streams that this process may post about. None
        without a ledger.

        Args:
            answered_seconds: for how long the ledger has answered. A stream of another process is taken over once that
                process could have looked for LEASE_SECONDS.
        """
        with self._database.connect("reading the alerts in the ledger") as connection:
            if not schema.has_ledger(connection, self._database):
                return None
            values = {
                "poster": poster,
                "renew": RENEW_SECONDS,
                "lease": LEASE_SECONDS,
                "takes_over": answered_seconds >= LEASE_SECONDS,
            }
            own = connection.execute(self._database.schemas.sql(_READ), {**values, "streams": list(streams)})
            problems = {row.stream: row.problems for row in own}
            if others := [stream for stream in streams if stream not in problems]:
                claimed = connection.execute(self._database.schemas.sql(_CLAIM), {**values, "streams": others})
                problems |= {row.stream: row.problems for row in claimed}
            return problems

    def renewed_seconds(self, streams: Collection[str]) -> dict[str, float]:
        """Stream → seconds since its row was renewed."""
        with self._database.connect("reading the alerts in the ledger") as connection:
            if not schema.has_ledger(connection, self._database):
                return {}
            ages = connection.execute(self._database.schemas.sql(_AGES), {"streams": list(streams)})
            return {row.stream: row.age for row in ages}

    def store(self, problems: Mapping[str, Mapping[str, Any]], poster: str) -> bool:
        """Store the problems of the process's own streams. False without a ledger."""
        rows = [
            {"stream": stream, "poster": poster, "problems": json.dumps(entries)}
            for stream, entries in sorted(problems.items())
        ]
        with self._database.connect("writing the alerts into the ledger") as connection:
            if not schema.has_ledger(connection, self._database):
                return False
            connection.execute(self._database.schemas.sql(_STORE), rows)
            return True

"""Takes the ledger back to an earlier version, for a return to older code."""

from __future__ import annotations

from sqlalchemy import text

from ..core.errors import SettingsError
from . import blockers, schema
from .database import Database
from .errors import MIGRATING


def downgrade(database: Database, version: str) -> None:
    """Undo the ledger's migrations after this version. Event tables stay.

    Raises:
        SettingsError: the ledger has no such version, or is not newer.
        DatabaseUnavailable: another session locked a table for longer than 5 s. The message names the session.
    """
    from alembic import command

    ledger = database.schemas.ledger
    with (
        blockers.named(database, []),
        database.connect(MIGRATING, statement_seconds=0) as connection,
    ):
        connection.execute(text(f"SELECT pg_advisory_xact_lock({blockers.MIGRATION_LOCK})"))
        present = schema.ledger_version(connection, ledger)
        if present is None or not version.isdecimal() or not 1 <= int(version) < int(present):
            raise SettingsError(f"the ledger {ledger} has version {present}, and {version} is no earlier one")
        command.downgrade(schema.migrations(connection, ledger), f"{int(version):04}")

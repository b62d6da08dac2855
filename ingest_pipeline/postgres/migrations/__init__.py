"""Alembic migrations of the ledger. The event tables follow the streams: see postgres/schema.py."""

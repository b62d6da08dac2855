"""Alembic's environment: runs on the connection it is handed, never on a URL of its own."""

from alembic import context

_schema = context.config.attributes["ledger_schema"]
context.configure(
    connection=context.config.attributes["connection"],
    version_table_schema=_schema,
    version_table="schema_version",
    include_schemas=True,
)
with context.begin_transaction():
    context.run_migrations()

"""Settings of every session. Defaults of role, database or server have no effect.

`search_path` and `row_security` keep their defaults, because triggers on the event tables may rely on them.
`default_transaction_read_only` keeps its default, because the parameter may fence a replaced primary.
"""

from collections.abc import Mapping

from sqlalchemy import text

FROZEN_SECONDS = 20
"""A session without a sign of life for this long is ended: by the server between statements, by a waiting run in COPY.
"""
STATEMENT_SECONDS = 5
"""Statement time-out of queries on pooled connections."""
LONG_STATEMENT_SECONDS = 60
"""Statement time-out of writes, in runs and commands."""

_COMMON = {
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": f"{FROZEN_SECONDS}s",
    "transaction_timeout": "0",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "extra_float_digits": "1",
    "array_nulls": "on",
}
WRITING = {
    **_COMMON,
    "statement_timeout": f"{LONG_STATEMENT_SECONDS}s",
    "idle_session_timeout": f"{FROZEN_SECONDS}s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "default_transaction_isolation": "read committed",
    "plan_cache_mode": "force_generic_plan",  # the statements of a batch are always the same: plan them once
}
SHARED = {"lock_timeout": "100ms", "statement_timeout": "5s"}
"""Settings of a writing session shared by several streams, in place of WRITING."""
QUESTION = {**_COMMON, "statement_timeout": f"{STATEMENT_SECONDS}s"}
"""Settings for one transaction. A pooler in transaction mode keeps none of them."""

_SET = """
    SELECT count(set_config(name, value, {local})) AS settings, pg_backend_pid() AS pid,
           current_setting('transaction_read_only') = 'on' AS read_only
    FROM unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS setting(name, value)
    WHERE current_setting(name, true) IS NOT NULL"""  # an older server does not know transaction_timeout
SET_SESSION, SET_TRANSACTION = text(_SET.format(local="false")), text(_SET.format(local="true"))


def parameters(settings: Mapping[str, str]) -> dict[str, list[str]]:
    return {"names": list(settings), "values": list(settings.values())}

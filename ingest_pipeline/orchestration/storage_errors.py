"""The exceptions of Dagster's storages."""

import sqlite3
from functools import cache
from importlib import import_module
from importlib.util import find_spec

_OF_PACKAGES = (
    ("sqlalchemy", "exc", "DBAPIError"),
    ("sqlalchemy", "exc", "TimeoutError"),
    ("dagster_postgres", "utils", "DagsterPostgresException"),
    ("dagster_mysql", "utils", "DagsterMySQLException"),
)
"""Exceptions of Dagster's storages when their database refuses a write or does not answer. The last two follow the
storage's own connection attempts."""


@cache
def storage_errors() -> tuple[type[Exception], ...]:
    """The exceptions of Dagster's storages and of disks. The packages are imported when a run needs them."""
    exceptions = [
        getattr(import_module(f"{package}.{module}"), name)
        for package, module, name in _OF_PACKAGES
        if find_spec(package) is not None
    ]
    return (sqlite3.Error, OSError, *exceptions)

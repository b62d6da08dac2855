"""Makes Dagster's SQLite storage quick, for this process and its forks.

Dagster reads its hundred migration files for every instance and every run, and SQLite waits for the disk at every
event. Both took half the time of the tests that run jobs.
"""

import sqlite3
from functools import cache

from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.sql import get_alembic_config
from sqlalchemy import Engine, event


@cache
def quicken_dagster() -> None:
    """Read the migration files now, once, and let SQLite not wait for the disk."""
    read, scripts = ScriptDirectory.from_config, dict[str | None, ScriptDirectory]()

    def read_once(config: Config) -> ScriptDirectory:
        folder = config.get_main_option("script_location")
        if folder not in scripts:
            scripts[folder] = read(config)
        return scripts[folder]

    ScriptDirectory.from_config = read_once  # type: ignore[method-assign, assignment]
    read_once(get_alembic_config(sqlite_run_storage.__file__)).get_heads()
    event.listen(Engine, "connect", _do_not_wait_for_the_disk)


def _do_not_wait_for_the_disk(connection: object, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")

"""Roles and databases with other defaults than PostgreSQL's. Sessions set the values they rely on, and `ingest check`
names defaults that cannot work.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from threading import Thread
from urllib.parse import urlsplit

import psycopg
import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable, NotPermitted, SchemaMismatch
from ingest_pipeline.postgres import rights, server_checks
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledgers import PostgresLedgers
from ingest_pipeline.postgres.replay import MissingRows
from ingest_pipeline.postgres.table_reads import newest
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.samples import READING, good, message
from ingest_pipeline_tests.servers.choose import RealPostgres

Make = Callable[..., str]
_SLOW_TRIGGER = """
    CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_catalog.pg_sleep(0.8); RETURN NEW; END';
    CREATE TRIGGER slow BEFORE INSERT ON public.reading FOR EACH ROW EXECUTE FUNCTION public.slow()"""


@pytest.fixture
def home(postgres_server: RealPostgres) -> Iterator[Make]:
    """`home("DateStyle = 'SQL, DMY'", encoding="LATIN1")`: the URL of a role that owns a database."""
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        names = []

        def make(*defaults: str, encoding: str = "UTF8", of: str = "ROLE") -> str:
            name = f"home_{uuid.uuid4().hex[:8]}"
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
            connection.execute(
                f"CREATE DATABASE {name} OWNER {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
            )
            names.append(name)
            for default in defaults:
                connection.execute(f"ALTER {of} {name} SET {default}")
            where = urlsplit(postgres_server.url)
            return where._replace(netloc=f"{name}:secret@{where.hostname}:{where.port}", path=f"/{name}").geturl()

        yield make
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("of", ["ROLE", "DATABASE"])
@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_defaults_change_nothing(home: Make, of: str, method: str) -> None:
    """With each of these some release of psycopg, or this package, read or wrote a wrong value."""
    url = home(
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'sql_standard'",
        "TimeZone = 'Pacific/Chatham'",
        "bytea_output = 'escape'",
        "standard_conforming_strings = off",
        "backslash_quote = off",
        "extra_float_digits = -15",
        "array_nulls = off",
        "client_encoding = 'LATIN1'",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "statement_timeout = '1s'",
        "lock_timeout = '1s'",
        "transaction_timeout = '1s'",
        "idle_session_timeout = '1s'",
        "idle_in_transaction_session_timeout = '1s'",
        "synchronous_commit = off",
        "search_path = ''",
        of=of,
    )
    with Bench(url, method=method) as bench:
        bench.begin()
        with bench.database.connect("taking long") as connection:
            connection.exec_driver_sql("SELECT pg_sleep(1.2)")
            time.sleep(1.2)
        with psycopg.connect(url) as connection:
            connection.execute(_SLOW_TRIGGER)
        written = bench.write([good(), good("d\u20ac\\", 0.1), b"no JSON"])
        assert (written.rows, written.dead_letters) == ({0: 2}, {0: 1})
        names, rows = newest(bench.database, READING, 5)
        stored = next(dict(zip(names, row, strict=True)) for row in rows if row[names.index("kafka_offset")] == 1)
        assert (stored["device_id"], stored["temperature"]) == ("d\u20ac\\", 0.1)
        assert stored["event_time"].isoformat() == "2026-01-01T00:00:00.500000+00:00"
        assert bench.ledger.snapshot().positions[0].next_offset == 3
        assert bench.ledger.state().ticked_at is None
        PostgresLedgers(bench.database, [READING]).note_ticks([READING.name])
        assert bench.ledger.state().ticked_at is not None
        connection = bench.session.connection.driver_connection
        for name, value in (("synchronous_commit", "on"), ("transaction_isolation", "read committed")):
            assert connection.execute(f"SHOW {name}").fetchone() == (value,)
        connection.rollback()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_an_encoding_that_cannot_hold_every_text_is_named(home: Make, encoding: str) -> None:
    database = Database(sqlalchemy_url(home(encoding=encoding)))
    assert [what for what, wrong in server_checks.problems(database) if encoding in wrong] == ["encoding"]
    with pytest.raises(SchemaMismatch, match=f"{encoding}: .* ENCODING 'UTF8'"):
        database.writing_connection("run")
    database.dispose()


def test_the_right_to_make_temporary_tables_is_named(home: Make, postgres_server: RealPostgres) -> None:
    url = home()
    name = urlsplit(url).username
    with Bench(url) as bench:
        bench.begin().write([good()])
        batch = bench.batch([message(0, 1)])
        bench.sql(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC, {name}")
        with bench.database.connect("looking") as connection:
            (grant,) = rights.missing_rights(connection, [READING], bench.database.schemas)
        assert grant == f'GRANT TEMPORARY ON DATABASE "{name}" TO "{name}"'
        with pytest.raises(NotPermitted, match="temporary tables in database"):
            MissingRows(bench.database, READING).store(batch)
        bench.sql(grant)
        MissingRows(bench.database, READING).store(batch)


def test_triggers_that_are_switched_off_are_named(home: Make, postgres_server: RealPostgres) -> None:
    url = home("session_replication_role = 'replica'")
    database = Database(sqlalchemy_url(url))
    (problem,) = server_checks.problems(database)
    assert problem[0] == "session_replication_role"
    assert "RESET session_replication_role" in problem[1]
    database.dispose()


@pytest.mark.parametrize("of", ["ROLE", "DATABASE"])
def test_a_database_that_takes_no_writes_is_named(home: Make, of: str) -> None:
    """The database may be a fenced primary, so sessions do not override its read-only default."""
    database = Database(sqlalchemy_url(home("default_transaction_read_only = on", of=of)))
    for use in (lambda: database.connect("asking").__enter__(), lambda: database.writing_connection("run")):
        with pytest.raises(DatabaseUnavailable, match="takes no writes: it is a standby, or default_trans") as caught:
            use()
        assert caught.value.sqlstate == "25006"
    database.dispose()


def test_several_servers_without_a_kind_are_named(database_url: str) -> None:
    where = urlsplit(database_url)
    twice = where._replace(netloc=f"{where.username}:{where.password}@{where.hostname}:{where.port},127.0.0.1:1")
    for options, expected in (("", ["several hosts"]), ("target_session_attrs=read-write", [])):
        database = Database(sqlalchemy_url(twice._replace(query=options).geturl()))
        assert [what for what, _ in server_checks.problems(database)] == expected
        database.dispose()


def test_a_session_in_use_is_closed_after_another_thread_emptied_the_pool(database_url: str) -> None:
    database = Database(sqlalchemy_url(database_url))
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
    with database.connect("a look") as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        emptying = Thread(target=database.dispose)
        emptying.start()
        emptying.join()
        assert query(database_url, sessions, pid) == [1]
    wait_for("the end of the session", lambda: query(database_url, sessions, pid) == [0])
    database.dispose()

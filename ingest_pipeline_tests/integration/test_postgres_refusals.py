"""PostgreSQL refuses a session: each reason has its own message with a way out."""

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable
from ingest_pipeline.local.postgres import EmbeddedPostgres
from ingest_pipeline.local.server import free_port
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.settings.database_url import sqlalchemy_url

PASSWORD = "cAnArY-17"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    options = {"max_connections": "8", "superuser_reserved_connections": "3"}
    with EmbeddedPostgres(tmp_path_factory.mktemp("refusals"), options=options) as running:
        yield running


@pytest.fixture
def role(server: EmbeddedPostgres) -> Iterator[Callable[..., str]]:
    """`role("NOLOGIN")` makes a role and a database of the same name, and returns the role's URL."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        made = []

        def make(*changes: str) -> str:
            name = f"r{uuid.uuid4().hex[:8]}"
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
            connection.execute(f"CREATE DATABASE {name}")
            made.append(name)
            for change in changes:
                connection.execute(change.format(name=name))
            where = urlsplit(server.url)
            return f"postgresql://{name}:{PASSWORD}@{where.hostname}:{where.port}/{name}"

        yield make
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute(f"DROP ROLE {name}")


def refusal(url: str) -> DatabaseUnavailable:
    database = Database(sqlalchemy_url(url))
    try:
        with pytest.raises(DatabaseUnavailable) as caught, database.connect("asking"):
            pass
    finally:
        database.dispose()
    assert PASSWORD not in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("changes", "state", "words"),
    [
        (["ALTER ROLE {name} NOLOGIN"], "28000", "the login is refused"),
        (["ALTER ROLE {name} PASSWORD 'other'"], "28P01", "the password or the user is refused: check DATABASE_URL"),
        (["ALTER ROLE {name} PASSWORD NULL"], "28P01", "the password or the user is refused: check DATABASE_URL"),
        (["REVOKE CONNECT ON DATABASE {name} FROM PUBLIC"], "42501", "GRANT CONNECT ON DATABASE"),
        (["ALTER DATABASE {name} ALLOW_CONNECTIONS false"], "55000", "the database takes no sessions"),
        (["ALTER ROLE {name} CONNECTION LIMIT 0"], "53300", "CONNECTION LIMIT"),
        (["ALTER DATABASE {name} CONNECTION LIMIT 0"], "53300", "CONNECTION LIMIT"),
    ],
)
def test_a_refused_login_is_named(role: Callable[..., str], changes: list[str], state: str, words: str) -> None:
    error = refusal(role(*changes))
    assert error.sqlstate == state
    assert words in error.message
    assert "not reachable" not in error.message


def test_a_database_that_does_not_exist_is_named(role: Callable[..., str]) -> None:
    error = refusal(f"{role()}_gone")
    assert error.sqlstate == "3D000"
    assert "there is no such database: check DATABASE_URL, or create it" in error.message


def test_too_many_clients_names_the_limit_and_what_to_do(server: EmbeddedPostgres, role: Callable[..., str]) -> None:
    url = role()
    with ExitStack() as cleanup:
        for _ in range(8):
            try:
                cleanup.enter_context(psycopg.connect(url))
            except psycopg.OperationalError:  # the reserved slots alone are left
                break
        reserved = refusal(url)
        for _ in range(8):
            try:
                cleanup.enter_context(psycopg.connect(server.url))
            except psycopg.OperationalError:
                break
        full = refusal(url)
    for error in (reserved, full):
        assert error.sqlstate == "53300"
        for words in ("max_connections", "job=", "PARALLELISM", "DATABASE_POOL_MAX", "pooler in session mode"):
            assert words in error.message
        assert "Check that it runs" not in error.message


def test_a_server_that_shuts_down_is_named(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "own") as own:
        database = Database(sqlalchemy_url(own.url))
        with psycopg.connect(own.url):
            os.kill(own.pid, signal.SIGTERM)  # it waits for this client, and takes no other
            with pytest.raises(DatabaseUnavailable, match="takes sessions again when that is done") as caught:
                while True:
                    database.dispose()
                    with database.connect("asking"):
                        pass
        database.dispose()
    assert caught.value.sqlstate == "57P03"


def test_tls_that_is_refused_is_named(role: Callable[..., str]) -> None:
    message = refusal(f"{role()}?sslmode=require").message
    assert "TLS with it failed: check sslmode" in message


def test_a_password_that_is_missing_is_named(role: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    message = refusal(role().replace(f":{PASSWORD}@", "@")).message
    assert "asks for a password, and DATABASE_URL has none" in message


def test_a_missing_primary_is_named(role: Callable[..., str]) -> None:
    url = role("ALTER ROLE {name} SET default_transaction_read_only = on")
    message = refusal(f"{url}?target_session_attrs=read-write").message
    assert "the primary is away, or no standby has been promoted yet" in message


def test_an_unknown_option_is_named(server: EmbeddedPostgres) -> None:
    assert 'option that PostgreSQL\'s client does not know: invalid connection option "nope"' in (
        refusal(f"{server.url}?nope=1").message
    )


def test_every_server_that_was_tried_is_named(server: EmbeddedPostgres) -> None:
    ports = free_port(), free_port()
    where = urlsplit(server.url)
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    message = refusal(where._replace(netloc=f"{where.username}:{where.password}@{hosts}").geturl()).message
    assert message.startswith(f"asking at {hosts}/postgres: PostgreSQL is not reachable. Check that it runs")
    for port in ports:
        assert message.count(f'connection to server at "127.0.0.1", port {port} failed') == 1


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u@h/d", "h:5432/d"),
        ("postgresql://u@[::1]:5433/d", "::1:5433/d"),
        ("postgresql://u@a:1,b:2/d", "a:1,b:2/d"),
        ("postgresql://u@a,b/d", "a:5432,b:5432/d"),
        ("postgresql:///d?host=/var/run&port=45832", "/var/run:45832/d"),
        ("postgresql:///d?host=a,b&port=1,2", "a:1,b:2/d"),
        ("postgresql:///d", "local socket:5432/d"),
    ],
)
def test_messages_name_the_real_servers(url: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT"):
        monkeypatch.delenv(name, raising=False)
    database = Database(sqlalchemy_url(url))
    assert database.where == place
    database.dispose()


def test_messages_name_the_server_of_libpqs_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("PGPORT", "7")
    assert Database(sqlalchemy_url("postgresql:///d")).where == "elsewhere:7/d"

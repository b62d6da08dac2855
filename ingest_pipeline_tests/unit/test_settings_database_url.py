"""DATABASE_URL: loading names each mistake and its correction, never the secret."""

from pathlib import Path

import pytest
from psycopg import pq

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.settings import load_settings
from ingest_pipeline.settings.database_url import _FOREIGN_OPTIONS, LIBPQ_OPTIONS
from ingest_pipeline_tests.unit.settings_loading import CANARY, STREAMS, load, problems

URL = f"postgresql://u:{CANARY}@h:5432/d"


def test_the_options_are_those_of_the_installed_libpq() -> None:
    assert {option.keyword.decode() for option in pq.Conninfo.get_defaults()} == LIBPQ_OPTIONS
    assert not LIBPQ_OPTIONS & set(_FOREIGN_OPTIONS)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (
            f"{URL}?pgbouncer=true",
            "has no option pgbouncer: leave it out, and name a pool in session mode",
        ),
        (f"{URL}?schema=public", "has no option schema: use the setting DATABASE_SCHEMA"),
        (f"{URL}?currentSchema=x", "has no option currentSchema: use the setting DATABASE_SCHEMA"),
        (f"{URL}?ssl=true", "has no option ssl: use sslmode=require"),
        (f"{URL}?connection_limit=5", "has no option connection_limit: use the setting DATABASE_POOL_MAX"),
        (f"{URL}?connectTimeout=5", "has no option connectTimeout: use connect_timeout"),
        (f"{URL}?sslmod=require", "has no option sslmod: use sslmode"),
        (f"{URL}?prepare_threshold=0", "has no option prepare_threshold: leave it out"),
        (f"{URL}?autocommit=true", "has no option autocommit: libpq's manual lists the options"),
        (f"{URL}?sslmode=require&zzz=1", "has no option zzz"),
        (f"{URL}?{CANARY}", "options as name=value"),
        (f"{URL}?{CANARY}%21=1", "options as name=value"),
        (f"{URL}?sslmode=on", "sslmode must be disable or allow or prefer or require"),
        (f"{URL}?target_session_attrs=standby", "target_session_attrs must be read-write or primary or any"),
        (f"{URL}?connect_timeout=5s", "connect_timeout must be a whole number"),
        (f"{URL}?sslmode=require&sslmode=disable", "the option sslmode occurs 2 times"),
        (f"{URL} ", "begins or ends with white space"),
        (f" {URL}", "begins or ends with white space"),
        (f"{URL}\n", "begins or ends with white space or with a line break"),
        (f'"{URL}"', "quotation marks: leave them out"),
        (f"'{URL}'", "quotation marks: leave them out"),
        (f"postgresql://u:{CANARY} x@h/d", "write a space in a name or a password as %20"),
        (f"postgresql+psycopg://u:{CANARY}@h/d", "starts with postgresql+psycopg://: write postgresql://"),
        (f"jdbc:postgresql://h/d?password={CANARY}", "starts with jdbc:postgresql://: write postgresql://"),
        ("postgresql://u:@h/d", "the password is empty"),
        (f"postgresql://:{CANARY}@h/d", "the user is empty"),
        (f"postgresql://u:{CANARY}%4@h/d", "a percent sign itself is %25"),
        (f"postgresql://u:{CANARY}%zz@h/d", "a percent sign itself is %25"),
        (f"postgresql://u:{CANARY}%ff@h/d", "is not UTF-8"),
        (f"postgresql://u:{CANARY}%00@h/d", "NUL"),
        (f"postgresql://u:{CANARY}@h:0/d", "a number from 1 to 65535"),
        (f"postgresql://u:{CANARY}@h:65536/d", "a number from 1 to 65535"),
        (f"postgresql://u:{CANARY}@a:1,b:654321/d", "a number from 1 to 65535"),
        (f"postgresql://u:{CANARY}@h:port/d", "a port is a number"),
    ],
)
def test_a_mistake_is_named(url: str, reason: str) -> None:
    message = problems(DATABASE_URL=url)["DATABASE_URL"]
    assert reason in message
    assert CANARY not in message


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p%40%25@h/d?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        "postgresql://u@h/d?host=a:1&host=b:2&target_session_attrs=read-write&load_balance_hosts=random",
        "postgresql://u@[::1]:65535/d?connect_timeout=10&keepalives_idle=30&options=-c%20geqo%3Doff",
        "postgresql://",
    ],
)
def test_libpq_options_are_accepted(url: str) -> None:
    assert load(DATABASE_URL=url, ALLOW_INSECURE_TLS="1").database_url.get_secret_value() == url


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u@db/d", "db"),
        ("postgresql://u@db/d?sslmode=require", "db"),
        ("postgresql://u@db/d?sslmode=verify-ca&sslrootcert=/ca.pem", "db"),
        ("postgresql://u@127.0.0.1:1,db:2/d", "db"),
        ("postgresql:///d?host=db&port=5433", "db"),
        ("postgresql://u@localhost/d?hostaddr=10.0.0.1", "10.0.0.1"),
        ("postgresql://u@[2001:db8::1]:5432/d", "2001:db8::1"),
        ("postgresql://u@localhost/d?service=events", "service events"),
        ("postgresql:///d?service=events&sslmode=require", "service events"),
    ],
)
def test_a_server_beyond_this_machine_is_verified(url: str, hosts: str) -> None:
    message = problems(DATABASE_URL=url)["DATABASE_URL"]
    assert message.startswith(
        f"is refused: any server could pose as {hosts}. Add sslmode=verify-full and sslrootcert, "
    )
    assert load(DATABASE_URL=url, ALLOW_INSECURE_TLS="1")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@db/d?sslmode=verify-full&sslrootcert=/ca.pem",
        "postgresql://u@db/d?sslrootcert=system",
        "postgresql:///d?service=events&sslmode=verify-full",
        "postgresql://u@localhost:1,127.0.0.2,[::1]:3/d",
        "postgresql:///d?host=::1",
        "postgresql:///d?host=/var/run/postgresql",
        "postgresql:///d",
    ],
)
def test_a_verified_server_and_this_machine_are_accepted(url: str) -> None:
    assert load(DATABASE_URL=url)


def test_variables_of_libpq_count_too() -> None:
    assert "db" in problems(DATABASE_URL="postgresql:///d", PGHOST="db")["DATABASE_URL"]
    assert "10.0.0.1" in problems(DATABASE_URL="postgresql://localhost/d", PGHOSTADDR="10.0.0.1")["DATABASE_URL"]
    assert load(DATABASE_URL="postgresql://localhost/d?hostaddr=127.0.0.1", PGHOSTADDR="10.0.0.1")
    assert load(DATABASE_URL="postgresql://db/d", PGSSLMODE="verify-full")
    by_service = problems(DATABASE_URL="postgresql:///d", PGSERVICE="events", PGSSLMODE="verify-full")
    assert "service events" in by_service["DATABASE_URL"]


def test_variables_of_libpq_in_a_file_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libpq does not read the file."""
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "PGSSLMODE", "ALLOW_INSECURE_TLS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql://db/d\nPGSSLMODE=verify-full\n")
    with pytest.raises(SettingsError, match="any server could pose as db"):
        load_settings(STREAMS)
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert load_settings(STREAMS)

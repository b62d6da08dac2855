"""Secrets, such as DATABASE_URL, also from a file: parsed correctly, printed masked, in no error."""

import pickle
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.settings import Settings, describe, load_settings
from ingest_pipeline.settings.secret_files import secret_variables
from ingest_pipeline.settings.variables import JOB_VARIABLES, SHARED_VARIABLES, STREAM_VARIABLES
from ingest_pipeline_tests.unit.settings_loading import CANARY, STREAMS, load, problems


@pytest.mark.parametrize(
    ("url", "sqlalchemy"),
    [
        ("postgresql://u:p@h:5432/d", "postgresql+psycopg://u:p@h:5432/d"),
        ("postgres://u:p%40x@h/d?sslmode=verify-full", "postgresql+psycopg://u:p%40x@h/d?sslmode=verify-full"),
        ("postgresql://u@[::1]:5432/d", "postgresql+psycopg://u@[::1]:5432/d"),
        ("postgresql:///d?host=/var/run/postgresql", "postgresql+psycopg:///d?host=/var/run/postgresql"),
        ("postgresql://", "postgresql+psycopg://"),
        (
            "postgresql://u:p@a:1,b:2/d?target_session_attrs=read-write",
            "postgresql+psycopg://u:p@/d?host=a:1&host=b:2&target_session_attrs=read-write",
        ),
        ("postgresql://a,b", "postgresql+psycopg:///?host=a&host=b"),
    ],
)
def test_sqlalchemy_url(url: str, sqlalchemy: str) -> None:
    assert load(DATABASE_URL=url, ALLOW_INSECURE_TLS="1").sqlalchemy_url == sqlalchemy


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://u:{CANARY}@h/d",
        f"mysql://u:{CANARY}@h/d",
        f"host=h password={CANARY}",
        f"postgresql://u:{CANARY}@b@h/d",  # both libraries would take "b@h" for the host
        f"postgresql://u:{CANARY}/b@h/d",  # libpq would take "u" for the host, SQLAlchemy "h"
        f"postgresql://u:{CANARY}#b@h/d",
        f"postgresql://u:{CANARY}@h:port/d",
        f"postgresql://u:{CANARY}@h/d ",
    ],
)
def test_a_url_that_could_be_misread_is_refused_unquoted(url: str) -> None:
    messages = problems(DATABASE_URL=url)
    assert messages["DATABASE_URL"].startswith("must be postgresql://user:password@host:port/database: ")
    assert CANARY not in str(messages)


SECRETS = {
    "DATABASE_URL": f"postgresql://u:{CANARY}@h/d?sslmode=verify-full&sslpassword={CANARY}&password={CANARY}",
    "KAFKA_SASL_PASSWORD": CANARY,
    "KAFKA_SSL_KEY_PASSWORD": CANARY,
    "KAFKA_SSL_KEYSTORE_PASSWORD": CANARY,
    "KAFKA_SSL_KEY_PEM": CANARY,
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": CANARY,
    "KAFKA_SASL_OAUTHBEARER_CLIENT_CREDENTIALS_CLIENT_SECRET": CANARY,
    "KAFKA_SASL_OAUTHBEARER_CONFIG": f"principal=x secret={CANARY}",
    "KAFKA_SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_PASSPHRASE": CANARY,
    "KAFKA_SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_PEM": CANARY,
    "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": f"https://x:{CANARY}@idp.example.com/token",
    "KAFKA_SASL_KERBEROS_KINIT_CMD": f"echo {CANARY} | kinit",
}


def test_secrets_are_never_printed() -> None:
    settings = load(**SECRETS)
    printed = [repr(settings), str(settings), f"{settings}", repr(settings.kafka), str(settings.kafka)]
    printed += [repr(dict(settings.kafka)), repr(settings.database_url), str(settings.database_url)]
    printed += [repr(row) for row in describe(settings)]
    printed += [repr(pickle.loads(pickle.dumps(settings)))]
    assert not [text for text in printed if CANARY in text]


def test_secrets_are_still_there() -> None:
    settings = load(**SECRETS)
    assert settings.database_url.get_secret_value() == SECRETS["DATABASE_URL"]
    assert settings.kafka["sasl.password"] == CANARY
    assert f"{settings.kafka['sasl.password']}" == CANARY
    assert sum(CANARY in value for value in settings.kafka.values()) == len(SECRETS) - 1
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_secrets_are_in_no_error() -> None:
    environ = {
        **{f"PRICE_{name}": value for name, value in SECRETS.items()},
        **{f"{name}X": value for name, value in SECRETS.items() if name.startswith("KAFKA_")},
        "DATABASE_URL": f"mysql://u:{CANARY}@h/d",
        "KAFKA_BOOTSTRAP_SERVERS": f"u:{CANARY}@h:9092",
    }
    with pytest.raises(SettingsError) as caught:
        load_settings(STREAMS, environ)
    assert len(str(caught.value).splitlines()) == 1 + len(environ)
    assert CANARY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_secrets_are_in_no_error_of_values_built_by_hand() -> None:
    text: Any = f"mysql://u:{CANARY}@h/d"
    for url in (text, SecretStr(text)):
        with pytest.raises(ValidationError) as caught:
            Settings(database_url=url)
        assert CANARY not in str(caught.value)


def test_describe_has_every_setting_once() -> None:
    rows = describe(load())
    names = [row.name for row in rows]
    assert sorted(names) == sorted({*SHARED_VARIABLES, *STREAM_VARIABLES, *JOB_VARIABLES, "KAFKA_BOOTSTRAP_SERVERS"})
    assert {row.name for row in rows if row.scope == "stream"} == set(STREAM_VARIABLES)
    assert {row.name for row in rows if row.scope == "job"} == set(JOB_VARIABLES)
    for row in rows:
        assert row.value == row.default
        assert re.fullmatch(r"[A-Z][^.]*\.", row.meaning), "one sentence"
        assert row.allowed
        assert "None" not in row.allowed


def test_described_values_can_be_loaded_again() -> None:
    """load_settings reads every described value, secrets excepted, as the same value."""
    environ: dict[str, str] = {
        "BATCH_SIZE": "10",
        "PRICE_BATCH_BYTES": "1000000",
        "PRICE_START_FROM": "2026-01-31T06:00:00+02:00",
        "TEMPERATURE_BATCH_TIMEOUT": "0.25",
        "ALLOW_INSECURE_TLS": "yes",
        "KAFKA_CLIENT_RACK": "eu-1a",
        "KAFKA_SASL_USERNAME": "ingest",
    }
    settings = load(**environ)
    shown = {row.name: row.value for row in describe(settings)}
    assert load_settings(STREAMS, shown) == settings
    assert {name: shown[name] for name in environ} == {
        **environ,
        "PRICE_START_FROM": "2026-01-31T04:00:00+00:00",
        "ALLOW_INSECURE_TLS": "1",
    }


def test_describe_masks_the_password_and_shows_the_rest() -> None:
    shown = {row.name: row.value for row in describe(load(**SECRETS))}
    assert (
        shown["DATABASE_URL"]
        == "postgresql://u:********@h/d?sslmode=verify-full&sslpassword=********&password=********"
    )
    assert shown["KAFKA_SASL_PASSWORD"] == "********"


URL = f"postgresql://u:{CANARY}@localhost/d"


def file(folder: Path, text: str | bytes) -> str:
    path = folder / "secret"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_line_break_at_the_end_does_not_count(tmp_path: Path, end: str) -> None:
    settings = load(DATABASE_URL_FILE=file(tmp_path, f"{URL}{end}"))
    assert settings.database_url.get_secret_value() == URL
    assert CANARY not in repr(settings)
    assert CANARY not in str(describe(settings))


def test_every_secret_may_come_from_a_file(tmp_path: Path) -> None:
    assert {"DATABASE_URL", "ALERT_WEBHOOK_URL", "SCHEMA_REGISTRY_BASIC_AUTH", "KAFKA_SASL_PASSWORD"} <= {
        *secret_variables()
    }
    for name in secret_variables():
        text = {
            "DATABASE_URL": URL,
            "ALERT_WEBHOOK_URL": f"https://h/{CANARY}",
            "SCHEMA_REGISTRY_BASIC_AUTH": f"u:{CANARY}",
        }.get(name, CANARY)
        environ = {f"{name}_FILE": file(tmp_path, f"{text}\n")}
        assert load(**environ) == load(**{name: text})


def test_a_pem_keeps_its_lines(tmp_path: Path) -> None:
    assert load(KAFKA_SSL_KEY_PEM_FILE=file(tmp_path, "a\nb\n\n")).kafka["ssl.key.pem"] == "a\nb\n"


def test_a_file_that_gives_no_secret_is_named(tmp_path: Path) -> None:
    path = file(tmp_path, f"{URL}\n")
    assert problems(DATABASE_URL_FILE=path, DATABASE_URL=URL)["DATABASE_URL_FILE"] == (
        "is set together with DATABASE_URL: set one of them"
    )
    missing = problems(ALERT_WEBHOOK_URL_FILE=f"{path}.gone")["ALERT_WEBHOOK_URL_FILE"]
    assert missing == "names a file that cannot be read: No such file or directory"
    for content, message in {b"\xff": "not UTF-8 text", b"\n": "an empty file"}.items():
        assert message in problems(KAFKA_SASL_PASSWORD_FILE=file(tmp_path, content))["KAFKA_SASL_PASSWORD_FILE"]


def test_an_unusable_content_is_not_quoted(tmp_path: Path) -> None:
    message = problems(DATABASE_URL_FILE=file(tmp_path, f"mysql://u:{CANARY}@h/d"))["DATABASE_URL"]
    assert CANARY not in message

"""X_FILE names a file with the secret X."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_pipeline.settings import describe
from ingest_pipeline.settings.secret_files import secret_variables
from ingest_pipeline_tests.unit.settings_loading import CANARY, load, problems

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

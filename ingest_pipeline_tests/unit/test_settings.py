"""Environment → settings: sources, ranges, refusals."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.settings import JobSettings, Settings, StreamSettings, load_settings
from ingest_pipeline.settings.variables import JOB_VARIABLES, SHARED_VARIABLES, STREAM_VARIABLES
from ingest_pipeline_tests.unit.settings_loading import STREAMS, load, problems


def test_empty_environment_gives_the_documented_defaults() -> None:
    settings = load()
    assert settings.database_url.get_secret_value() == "postgresql://postgres@localhost:5432/postgres"
    assert settings.sqlalchemy_url == "postgresql+psycopg://postgres@localhost:5432/postgres"
    assert (settings.database_schema, settings.ledger_schema) == ("public", "ingest")
    assert (settings.database_pool_min, settings.database_pool_max) == (5, 20)
    assert settings.kafka_group_prefix == "ingest-"
    assert settings.kafka == {"bootstrap.servers": "localhost:9092"}
    assert (settings.run_retention_days, settings.failed_run_retention_days) == (7, 30)
    assert (settings.run_retention_keep, settings.log_format) == (200, "logfmt")
    assert settings.for_stream("price") == StreamSettings(
        batch_size=1000,
        batch_timeout_seconds=1.0,
        batch_bytes=16 * 1024 * 1024,
        start_from="earliest",
        adopt_group=None,
        report_seconds=60,
        report_as="observation",
        naive_timestamps="utc",
        write_method="copy",
        dead_letter_max_bytes=1024 * 1024,
    )
    assert settings.for_job("price") == JobSettings(
        parallelism=1, run_max_seconds=600, run_idle_seconds=60, run_max_batches=0, poll_seconds=1, retry_seconds=60
    )
    assert settings.for_stream("temperature") == settings.for_stream("price") == settings.stream_defaults
    assert settings.for_job("temperature") == settings.for_job("price") == settings.job_defaults


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("BATCH_SIZE", "1", 1),
        ("BATCH_SIZE", "100000", 100_000),
        ("BATCH_TIMEOUT", "0.01", 0.01),
        ("BATCH_TIMEOUT", "60", 60.0),
        ("BATCH_BYTES", "16777216", 16_777_216),
        ("BATCH_BYTES", "16MiB", 16_777_216),
        ("BATCH_BYTES", "512 KiB", 524_288),
        ("BATCH_BYTES", "64KiB", 65_536),
        ("START_FROM", "latest", "latest"),
        ("START_FROM", "2026-01-31T06:00:00Z", datetime(2026, 1, 31, 6, tzinfo=UTC)),
        ("START_FROM", "2026-01-31T06:00:00+02:00", datetime(2026, 1, 31, 4, tzinfo=UTC)),
        ("START_FROM", "2026-01-31T06:00:00", datetime(2026, 1, 31, 6, tzinfo=UTC)),
        ("START_FROM", "2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("START_FROM", "1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("ADOPT_GROUP", "connect-price", "connect-price"),
        ("REPORT_AS", "materialization", "materialization"),
        ("NAIVE_TIMESTAMPS", "reject", "reject"),
        ("WRITE_METHOD", "executemany", "executemany"),
        ("DEAD_LETTER_MAX_BYTES", "1KiB", 1024),
        ("BATCH_SIZE", "", 1000),
        ("BATCH_SIZE", "  ", 1000),
    ],
)
def test_text_of_a_stream_setting(variable: str, text: str, value: object) -> None:
    setting = getattr(load(**{variable: text}).for_stream("price"), STREAM_VARIABLES[variable])
    assert setting == value
    if isinstance(setting, datetime):
        assert setting.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("RUN_IDLE_SECONDS", "0", 0),
        ("RUN_MAX_BATCHES", "1", 1),
        ("PARALLELISM", "64", 64),
        ("RETRY_SECONDS", "0", 0),
    ],
)
def test_text_of_a_job_setting(variable: str, text: str, value: int) -> None:
    assert getattr(load(**{variable: text}).for_job("price"), JOB_VARIABLES[variable]) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("BATCH_SIZE", "0"),
        ("BATCH_SIZE", "100001"),
        ("BATCH_SIZE", "many"),
        ("BATCH_TIMEOUT", "0.009"),
        ("BATCH_TIMEOUT", "61"),
        ("BATCH_TIMEOUT", "nan"),
        ("BATCH_TIMEOUT", "inf"),
        ("BATCH_TIMEOUT", "1s"),
        ("BATCH_BYTES", "65535"),
        ("BATCH_BYTES", "257MiB"),
        ("BATCH_BYTES", "16 potatoes"),
        ("RUN_MAX_SECONDS", "9"),
        ("RUN_MAX_SECONDS", "86401"),
        ("RUN_IDLE_SECONDS", "-1"),
        ("RUN_MAX_BATCHES", "-1"),
        ("START_FROM", "now"),
        ("START_FROM", "1700000000"),
        ("START_FROM", "1969-12-31T23:59:59.999Z"),  # -1 ms means "latest" to Kafka
        ("START_FROM", "0001-01-01T00:00:00+05:00"),
        ("ADOPT_GROUP", "two words"),
        ("PARALLELISM", "65"),
        ("POLL_SECONDS", "301"),
        ("REPORT_SECONDS", "0"),
        ("REPORT_AS", "both"),
        ("NAIVE_TIMESTAMPS", "local"),
        ("WRITE_METHOD", "COPY"),
        ("DEAD_LETTER_MAX_BYTES", "1"),
        ("RETRY_SECONDS", "3601"),
        ("DATABASE_SCHEMA", "Public"),
        ("DATABASE_SCHEMA", "a" * 64),
        ("LEDGER_SCHEMA", "pg_ledger"),
        ("LEDGER_SCHEMA", 'x"; drop'),
        ("DATABASE_POOL_MIN", "0"),
        ("DATABASE_POOL_MAX", "4"),
        ("KAFKA_GROUP_PREFIX", "a b"),
        ("ALLOW_INSECURE_TLS", "maybe"),
        ("RUN_RETENTION_DAYS", "0"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_an_invalid_value_is_refused_by_name(variable: str, text: str) -> None:
    assert list(problems(**{variable: text})) == [variable]


def test_the_message_has_form_range_and_value() -> None:
    assert problems(BATCH_SIZE="many", REPORT_AS="both", BATCH_BYTES="1", DATABASE_POOL_MIN="30") == {
        "BATCH_BYTES": "must be a size from 64 KiB to 256 MiB, such as 1048576, 1MiB or 512 KiB, not '1'",
        "BATCH_SIZE": "must be a whole number from 1 to 100000, not 'many'",
        "DATABASE_POOL_MAX": "is 20, less than DATABASE_POOL_MIN, 30",
        "REPORT_AS": "must be observation or materialization, not 'both'",
    }


def test_every_bad_setting_is_named_at_once() -> None:
    bad = {
        "BATCH_SIZE": "x",
        "PRICE_BATCH_SIZE": "0",
        "TEMPERATURE_RUN_MAX_SECONDS": "1",
        "DATABASE_URL": "mysql://h/d",
        "LOG_FORMAT": "xml",
        "KAFKA_GROUP_ID": "g",
        "KAFKA_SOCKET_TIMEOUT_MS": "60s",
        "KAFKA_NO_SUCH_THING": "1",
        "KAFKA_ENABLE_SSL_CERTIFICATE_VERIFICATION": "false",
        "PRCIE_BATCH_SIZE": "5",
        "PRICE_BATCH_SIZ": "5",
        "PRICE_LOG_FORMAT": "json",
    }
    assert sorted(problems(**bad)) == sorted(bad)


def test_a_bad_setting_hides_no_other() -> None:
    """ALLOW_INSECURE_TLS applies although another setting is invalid, and two bad overrides are two lines."""
    messages = problems(
        ALLOW_INSECURE_TLS="1",
        KAFKA_ENABLE_SSL_CERTIFICATE_VERIFICATION="false",
        DATABASE_POOL_MIN="30",
        PRICE_BATCH_SIZE="0",
        TEMPERATURE_BATCH_SIZE="0",
    )
    assert sorted(messages) == ["DATABASE_POOL_MAX", "PRICE_BATCH_SIZE", "TEMPERATURE_BATCH_SIZE"]


def test_values_built_by_hand_read_no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BATCH_SIZE=8\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCH_SIZE", "7")
    assert StreamSettings().batch_size == Settings().stream_defaults.batch_size == 1000
    assert load_settings(STREAMS, environ={}).for_stream("price").batch_size == 1000
    with pytest.raises(ValidationError):
        StreamSettings(batch_size=0)


def test_importing_reads_no_environment() -> None:
    code = "import ingest_pipeline.settings, ingest_pipeline.settings.docs"
    bad = {**os.environ, "BATCH_SIZE": "many", "DATABASE_URL": "?", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=bad, check=True)


def test_the_environment_overrides_the_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*SHARED_VARIABLES, *STREAM_VARIABLES, *JOB_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text(
        "# a comment\nBATCH_SIZE=10\nexport POLL_SECONDS=9\nPRICE_BATCH_SIZE='11'\nRETRY_SECONDS\n"
        'KAFKA_SASL_PASSWORD="p # w"\nPARALLELISM=3\nKAFKA_CLIENT_ID=file\n'
    )
    monkeypatch.setenv("BATCH_SIZE", "20")
    monkeypatch.setenv("KAFKA_CLIENT_ID", "environment")
    monkeypatch.setenv("PARALLELISM", "")
    settings = load_settings(STREAMS)
    assert settings.for_stream("temperature").batch_size == 20
    assert settings.for_stream("price").batch_size == 11
    assert settings.for_job("price").poll_seconds == 9
    assert settings.for_job("price").parallelism == 3
    assert settings.kafka["sasl.password"] == "p # w"
    assert settings.kafka["client.id"] == "environment"
    assert load_settings(STREAMS, env_file=None).for_stream("price").batch_size == 20


def test_env_file_may_be_absent_but_not_unreadable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load_settings((), env_file=str(tmp_path / "absent")).log_format in ("logfmt", "json")
    (tmp_path / ".env").write_bytes(b"BATCH_SIZE=\xff\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"^\.env is not UTF-8 text$"):
        load_settings(STREAMS)


@pytest.mark.parametrize(
    ("value", "field"), [(load(), "log_format"), (StreamSettings(), "batch_size"), (load(), "kafka")]
)
def test_values_are_frozen(value: Any, field: str) -> None:
    with pytest.raises(ValidationError):
        setattr(value, field, getattr(value, field))


def test_a_time_without_zone_is_utc_in_every_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        start_from = load(START_FROM="2026-01-31T06:00:00").stream_defaults.start_from
    finally:
        monkeypatch.undo()
        time.tzset()
    assert start_from == datetime(2026, 1, 31, 6, tzinfo=UTC)


def test_start_from_by_hand_is_in_utc() -> None:
    east = timezone(timedelta(hours=2))
    assert StreamSettings(start_from=datetime(2026, 1, 31, 6, tzinfo=east)).start_from == datetime(
        2026, 1, 31, 4, tzinfo=UTC
    )

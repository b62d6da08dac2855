"""A stream's own settings: precedence and misspelt names."""

from __future__ import annotations

import re

import pytest

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.settings import load_settings
from ingest_pipeline.settings.variables import JOB_VARIABLES, SHARED_VARIABLES, STREAM_VARIABLES
from ingest_pipeline_tests.unit.settings_loading import CANARY, STREAMS, load, problems


def test_an_override_beats_the_common_value_and_the_default() -> None:
    settings = load(BATCH_SIZE="10", PRICE_BATCH_SIZE="20", PRICE_BATCH_TIMEOUT="2", TEMPERATURE_START_FROM="latest")
    price, temperature = settings.for_stream("price"), settings.for_stream("temperature")
    assert (price.batch_size, temperature.batch_size, settings.stream_defaults.batch_size) == (20, 10, 10)
    assert (price.batch_timeout_seconds, temperature.batch_timeout_seconds) == (2.0, 1.0)
    assert (price.start_from, temperature.start_from) == ("earliest", "latest")


@pytest.mark.parametrize("variable", sorted({**STREAM_VARIABLES, **JOB_VARIABLES}))
def test_every_stream_setting_can_be_overridden(variable: str) -> None:
    assert list(problems(**{f"PRICE_{variable}": " , "})) == [f"PRICE_{variable}"]


def test_a_good_override_does_not_excuse_a_bad_common_value() -> None:
    assert list(problems(BATCH_SIZE="x", PRICE_BATCH_SIZE="5", TEMPERATURE_BATCH_SIZE="5")) == ["BATCH_SIZE"]


def test_streams_whose_names_contain_each_other() -> None:
    names = ("price", "eu_price", "price_run", "kafka", "otel")
    environ = {f"{name.upper()}_BATCH_SIZE": str(number) for number, name in enumerate(names, start=1)}
    settings = load_settings(names, environ)
    assert [settings.for_stream(name).batch_size for name in names] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("PRCIE_BATCH_SIZE", "PRICE_BATCH_SIZE"),
        ("PRICES_RUN_MAX_BATCHES", "PRICE_RUN_MAX_BATCHES"),
        ("PRIC_REPORT_SECONDS", "PRICE_REPORT_SECONDS"),
        ("PPRICE_RETRY_SECONDS", "PRICE_RETRY_SECONDS"),
        ("PRIZE_PARALLELISM", "PRICE_PARALLELISM"),
        ("TEMPERATRUE_START_FROM", "TEMPERATURE_START_FROM"),
        ("TEMPRATURE_BATCH_TIMEOUT", "TEMPERATURE_BATCH_TIMEOUT"),
        ("PRICE_BATCH_SIZ", "PRICE_BATCH_SIZE"),
    ],
)
def test_a_misspelt_override_is_refused_with_the_nearest_name(variable: str, nearest: str) -> None:
    messages = problems(**{variable: "1"})
    assert re.search(rf"the nearest name is {nearest}(,|$)", messages[variable])


@pytest.mark.parametrize("variable", ["BATCH_TIMEOUT_SECONDS", "PRICE_BATCH_TIMEOUT_SECONDS", "batch_timeout_seconds"])
def test_a_name_with_the_unit_is_corrected(variable: str) -> None:
    assert "BATCH_TIMEOUT" in problems(**{variable: "2"})[variable]


@pytest.mark.parametrize("setting", sorted({**STREAM_VARIABLES, **JOB_VARIABLES}))
@pytest.mark.parametrize(
    "word", ["EMBEDDING", "CELERY_TASK", "DB", "WORKER", "BULK_INSERT", "HUMIDITY", "TEMP", "EU_PRICE", "MODEL"]
)
def test_a_variable_of_other_software_is_ignored(word: str, setting: str) -> None:
    assert load(**{f"{word}_{setting}": "not for us"}) == load()


@pytest.mark.parametrize("variable", ["PRICE_DATABASE_URL", "PRICE_LOG_FORMAT", "PRICE_KAFKA_SASL_PASSWORD"])
def test_a_shared_setting_cannot_be_overridden(variable: str) -> None:
    messages = problems(**{variable: CANARY})
    assert messages == {variable: f"cannot be set for one stream: {variable.removeprefix('PRICE_')} holds for all"}


def test_ordinary_variables_are_ignored() -> None:
    ordinary = {
        name: "tcp://10.0.0.1:1"
        for name in (
            *("PATH", "HOME", "LANG", "PWD", "TERM", "SHLVL", "_", "HOSTNAME", "VIRTUAL_ENV", "PYTHONPATH"),
            *("PGHOST", "PGPASSWORD", "DATABASE_HOST", "DATABASE_NAME", "POSTGRES_PASSWORD", "DB_PARALLEL"),
            *(
                "PRICE_SERVICE_HOST",
                "PRICE_PORT_80_TCP",
                "PRICE_API_KEY",
                "TEMPERATURE_UNIT",
                "PRICE_FEED_URL",
            ),
            *("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "TOKENIZERS_PARALLELISM", "DAGSTER_HOME", "LOG_LEVEL"),
            *("EMBEDDING_BATCH_SIZE", "CELERY_TASK_TIME_LIMIT", "CELERYD_PREFETCH_MULTIPLIER", "DB_POOL_SIZE"),
            *("DATABASE_POOL_SIZE", "SQLALCHEMY_POOL_SIZE", "GUNICORN_WORKERS", "WEB_CONCURRENCY", "MAX_BATCH_SIZE"),
            *("OPENAI_MAX_RETRY_SECONDS", "JOB_RETRY_SECONDS", "CACHE_MAX_DELAY_SECONDS", "REDIS_URL", "SENTRY_DSN"),
            *("CONFLUENT_HOME", "JMX_PORT", "MY_KAFKA_SASL_PASSWORD", "BATCH_SIZES", "BATCH"),
        )
    }
    assert load_settings(STREAMS, ordinary) == load()


def test_without_streams_there_are_no_overrides() -> None:
    assert load_settings((), {"PRICE_BATCH_SIZE": "x", "HUMIDITY_BATCH_SIZE": "1"}).streams == {}


def test_full_names_are_never_overrides() -> None:
    """No setting's name ends in an underscore and the name of a stream's or job's setting."""
    for name in (*SHARED_VARIABLES, *STREAM_VARIABLES, *JOB_VARIABLES):
        assert not any(name.endswith(f"_{setting}") for setting in (*STREAM_VARIABLES, *JOB_VARIABLES))


def test_for_stream_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="'pirce': the nearest name is 'price'"):
        load().for_stream("pirce")


def test_for_job_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="for a job called 'pirce': the nearest name is 'price'"):
        load().for_job("pirce")

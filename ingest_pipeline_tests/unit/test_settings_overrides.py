"""The settings of one stream or one job, set or declared: precedence and misspelt names."""

import re

import pytest

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.settings import JobSettings, Settings, StreamSettings, describe, load_settings, settings_of
from ingest_pipeline.settings.variables import JOB_VARIABLES, SHARED_VARIABLES, STREAM_VARIABLES
from ingest_pipeline.streams import Price
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
            *("PRICE_SERVICE_HOST", "PRICE_PORT_80_TCP", "PRICE_API_KEY", "TEMPERATURE_UNIT", "PRICE_FEED_URL"),
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


def stream(name: str = "price", job: str = "", **settings: object) -> Stream:
    return Stream(name, Price, job=job, settings=settings)


@pytest.mark.parametrize(
    ("environ", "batch_size"),
    [({}, 7), ({"BATCH_SIZE": "8"}, 7), ({"BATCH_SIZE": "8", "PRICE_BATCH_SIZE": "9"}, 9)],
)
def test_only_the_own_variable_beats_the_declaration(environ: dict[str, str], batch_size: int) -> None:
    assert settings_of([stream(batch_size=7)], environ).for_stream("price").batch_size == batch_size


def test_settings_of_the_job_are_declared_too() -> None:
    streams = [stream(job="sites", parallelism=3), stream("other", "sites", parallelism=3, batch_timeout_seconds=0.5)]
    settings = settings_of(streams, {})
    assert settings.for_job("sites").parallelism == 3
    assert settings.for_stream("other").batch_timeout_seconds == 0.5


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        ([stream(batch_sise=7)], "'batch_sise' is no setting of a stream or of a job. Did you mean batch_size?"),
        ([stream(database_url="x")], "'database_url' is no setting of a stream"),
        ([stream(batch_size=0)], "PRICE_BATCH_SIZE must be a whole number from 1 to 100000"),
        ([stream(job="s", parallelism=2), stream("b", "s", parallelism=3)], "declares 2"),
    ],
)
def test_a_declaration_without_effect_is_refused(streams: list[Stream], words: str) -> None:
    with pytest.raises(SettingsError, match=words.replace("?", r"\?")):
        settings_of(streams, {})


def test_a_declared_setting_does_not_change_the_streams_definition() -> None:
    assert stream(batch_size=7).definition() == stream().definition()


def test_one_table_under_two_names_is_refused() -> None:
    streams = [Stream("price", Price), Stream("other", Price, table="events.price")]
    assert settings_of(streams, {}).database_schema == "public"
    with pytest.raises(SettingsError, match=r"streams price and other share the table events\.price"):
        settings_of(streams, {"DATABASE_SCHEMA": "events"})


JOBS = {"humidity": "sites", "pressure": "sites", "price": "price"}


def load_jobs(**environ: str) -> Settings:
    return load_settings(JOBS, environ)


def problem(variable: str) -> str:
    """The only line of the error."""
    with pytest.raises(SettingsError) as caught:
        load_jobs(**{variable: "1"})
    first, line = str(caught.value).splitlines()
    assert first == "1 setting cannot be used:"
    return line.removeprefix(f"  {variable} ")


def test_a_jobs_variable_beats_the_common_one_and_the_default() -> None:
    settings = load_jobs(PARALLELISM="2", SITES_PARALLELISM="3", PRICE_POLL_SECONDS="9")
    sites, price = settings.for_job("sites"), settings.for_job("price")
    assert (sites.parallelism, price.parallelism, settings.job_defaults.parallelism) == (3, 2, 2)
    assert (sites.poll_seconds, price.poll_seconds) == (1, 9)


def test_streams_of_a_job_keep_settings_of_their_own() -> None:
    settings = load_jobs(BATCH_SIZE="10", HUMIDITY_BATCH_SIZE="20")
    assert [settings.for_stream(name).batch_size for name in JOBS] == [20, 10, 10]
    assert list(settings.jobs) == ["sites", "price"]


def test_no_setting_is_both_the_streams_and_the_jobs() -> None:
    assert not StreamSettings.model_fields.keys() & JobSettings.model_fields.keys()


def test_names_alone_are_streams_with_jobs_of_the_same_names() -> None:
    environ = {"PRICE_PARALLELISM": "2", "PRICE_BATCH_SIZE": "7"}
    assert load_settings(["price", "reading"], environ) == load_settings(
        {"price": "price", "reading": "reading"}, environ
    )


@pytest.mark.parametrize("setting", sorted(JOB_VARIABLES))
def test_a_setting_of_runs_is_refused_for_one_stream_of_a_job(setting: str) -> None:
    words = f"cannot be set for one stream of a job: the name is SITES_{setting}"
    assert problem(f"HUMIDITY_{setting}") == words


@pytest.mark.parametrize("setting", sorted(STREAM_VARIABLES))
def test_a_setting_of_streams_is_refused_for_a_job(setting: str) -> None:
    words = f"cannot be set for a job, only for its streams: a name is HUMIDITY_{setting}"
    assert problem(f"SITES_{setting}") == words


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("SITSE_PARALLELISM", "names no stream and no job: the nearest name is SITES_PARALLELISM"),
        ("HUMIDTY_PARALLELISM", "names no stream and no job: the nearest name is SITES_PARALLELISM"),
        ("SITSE_BATCH_SIZE", "names no stream and no job: the nearest name is HUMIDITY_BATCH_SIZE"),
        ("HUMIDTY_BATCH_SIZE", "names no stream and no job: the nearest name is HUMIDITY_BATCH_SIZE"),
        ("SITES_PARALELISM", "sets nothing: the nearest name is SITES_PARALLELISM"),
        ("PRESSURE_PARALELISM", "sets nothing: the nearest name is SITES_PARALLELISM"),
        ("SITES_LOG_FORMAT", "cannot be set for one job: LOG_FORMAT holds for all"),
        ("PRESSURE_LOG_FORMAT", "cannot be set for one stream: LOG_FORMAT holds for all"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_name_that_sets_something(variable: str, words: str) -> None:
    assert problem(variable) == words


def test_describe_has_a_jobs_overrides() -> None:
    rows = {row.name: row for row in describe(load_jobs(SITES_PARALLELISM="3", PRESSURE_BATCH_SIZE="7"))}
    assert (rows["SITES_PARALLELISM"].value, rows["SITES_PARALLELISM"].default) == ("3", "1")
    assert (rows["PRESSURE_BATCH_SIZE"].scope, rows["SITES_PARALLELISM"].scope) == ("stream", "job")
    assert not {"PRICE_PARALLELISM", "SITES_BATCH_SIZE", "HUMIDITY_BATCH_SIZE"} & rows.keys()

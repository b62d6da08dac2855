"""A job's own settings: precedence, and a stream's name where a job's belongs."""

from __future__ import annotations

import pytest

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.settings import JobSettings, Settings, StreamSettings, describe, load_settings
from ingest_pipeline.settings.variables import JOB_VARIABLES, STREAM_VARIABLES

JOBS = {"humidity": "sites", "pressure": "sites", "price": "price"}


def load(**environ: str) -> Settings:
    return load_settings(JOBS, environ)


def problem(variable: str) -> str:
    """The only line of the error."""
    with pytest.raises(SettingsError) as caught:
        load(**{variable: "1"})
    first, line = str(caught.value).splitlines()
    assert first == "1 setting cannot be used:"
    return line.removeprefix(f"  {variable} ")


def test_a_jobs_variable_beats_the_common_one_and_the_default() -> None:
    settings = load(PARALLELISM="2", SITES_PARALLELISM="3", PRICE_POLL_SECONDS="9")
    sites, price = settings.for_job("sites"), settings.for_job("price")
    assert (sites.parallelism, price.parallelism, settings.job_defaults.parallelism) == (3, 2, 2)
    assert (sites.poll_seconds, price.poll_seconds) == (1, 9)


def test_streams_of_a_job_keep_settings_of_their_own() -> None:
    settings = load(BATCH_SIZE="10", HUMIDITY_BATCH_SIZE="20")
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
    rows = {row.name: row for row in describe(load(SITES_PARALLELISM="3", PRESSURE_BATCH_SIZE="7"))}
    assert (rows["SITES_PARALLELISM"].value, rows["SITES_PARALLELISM"].default) == ("3", "1")
    assert (rows["PRESSURE_BATCH_SIZE"].scope, rows["SITES_PARALLELISM"].scope) == ("stream", "job")
    assert not {"PRICE_PARALLELISM", "SITES_BATCH_SIZE", "HUMIDITY_BATCH_SIZE"} & rows.keys()

"""Settings in a stream's declaration."""

import pytest

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.settings import settings_of
from ingest_pipeline.streams import Price


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

"""What the table asset says of its table: the columns are the table's own, with what the Struct says of them."""

from datetime import datetime, timedelta
from typing import Annotated

import dagster as dg
import pytest
from msgspec import Meta, Struct, field
from sqlalchemy.dialects import postgresql

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.orchestration.described import column_schema
from ingest_pipeline.postgres.tables import event_table
from ingest_pipeline.settings import load_settings


class Meter(Struct):
    """One reading of one meter."""

    meter: Annotated[str, Meta(description="As printed on it.")]
    kilowatts: Annotated[float, Meta(ge=0, description="Mean since the last reading.")] | None
    event_time: Annotated[datetime, Meta(description="By the meter's clock.")] = field(name="timestamp")
    tariff: str | None = None


METER = Stream("meter", Meter, tags={"team/tier": "gold", "pii": ""}, max_silence=timedelta(hours=1))


def asset(stream: Stream, **environ: str) -> dg.AssetSpec:
    definitions = build_definitions([stream], load_settings([stream.name], environ))
    (spec,) = [spec for spec in definitions.resolve_all_asset_specs() if spec.key == dg.AssetKey(stream.name)]
    return spec


def test_the_columns_are_the_tables() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    shown = [(column.name, column.type, column.constraints.nullable) for column in column_schema(METER).columns]
    assert shown == [
        (column.name, column.type.compile(dialect=dialect).lower(), column.nullable)
        for column in event_table(METER, "public").columns
    ]
    key = ", ".join(column.name for column in event_table(METER, "public").primary_key.columns)
    constraints = column_schema(METER).constraints
    assert constraints is not None
    assert constraints.other == [f"PRIMARY KEY ({key})"]


def test_a_docstring_of_several_lines_has_no_indentation() -> None:
    class Long(Struct):
        """First.

        Second.
        """

        event_time: datetime

    class Silent(Struct):
        event_time: datetime

    assert asset(Stream("long", Long)).description == "First.\n\nSecond."
    assert event_table(Stream("long", Long), "public").comment == "First.\n\nSecond."
    assert asset(Stream("silent", Silent)).description == "Events of topic silent."
    assert event_table(Stream("silent", Silent), "public").comment is None


def test_they_say_what_the_struct_says_of_them() -> None:
    descriptions = {column.name: column.description for column in column_schema(METER).columns}
    assert descriptions["meter"] == "As printed on it."
    assert descriptions["kilowatts"] == "Mean since the last reading."
    assert descriptions["event_time"] == "By the meter's clock."
    assert descriptions["tariff"] is None
    assert all(descriptions[name] for name in descriptions.keys() - {"tariff"})


def test_tags_are_the_assets() -> None:
    tags = asset(METER).tags
    assert (tags["team/tier"], tags["pii"]) == ("gold", "")
    assert asset(METER).kinds == {"postgres"}


def test_names_in_the_queries_are_quoted() -> None:
    odd = Stream("meter", Meter, table='a"b; {x}')
    metadata = asset(odd, DATABASE_SCHEMA="select", LEDGER_SCHEMA="order").metadata
    newest, letters = (metadata[name].value for name in ("newest_rows_sql", "open_dead_letters_sql"))
    assert 'FROM "select"."a""b; {x}" AS event' in newest
    assert 'FROM "order".position AS at' in newest
    assert 'FROM "order".dead_letter\n' in letters
    for query in (newest, letters):
        assert query.startswith("```sql\nSELECT ")
        assert query.endswith(";\n```")


class TestFreshness:
    def test_there_is_none_where_no_silence_is_declared(self) -> None:
        assert asset(Stream("meter", Meter)).freshness_policy is None

    def test_a_silence_that_is_declared_is_the_window(self) -> None:
        assert asset(METER).freshness_policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=1))

    @pytest.mark.parametrize(
        ("environ", "least", "setting"),
        [
            ({}, 660, "RUN_MAX_SECONDS"),
            ({"METER_RUN_MAX_SECONDS": "60"}, 120, "RUN_MAX_SECONDS"),
            ({"REPORT_AS": "materialization", "REPORT_SECONDS": "30"}, 90, "REPORT_SECONDS"),
        ],
    )
    def test_a_busy_stream_would_not_be_stale(self, environ: dict[str, str], least: int, setting: str) -> None:
        assert asset(Stream("meter", Meter, max_silence=timedelta(seconds=least)), **environ).freshness_policy
        short = Stream("meter", Meter, max_silence=timedelta(seconds=least - 1))
        with pytest.raises(SettingsError, match=rf"stream meter: max_silence .* \({setting}\): .* {least} s"):
            asset(short, **environ)

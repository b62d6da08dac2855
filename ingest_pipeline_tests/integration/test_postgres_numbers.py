"""A number outside its column's range is refused, and the reason names the field."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused, SchemaMismatch
from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.integration.postgres_bench import Bench

TIMES = ["2026-01-01T00:00:00Z", "2026-01-01 00:00", "2026-01-01T00:00:00.1234567Z"]


class Amounts(msgspec.Struct):
    event_time: datetime
    amount: Decimal
    whole: int = 0


@pytest.mark.parametrize(
    "number", ["1e131072", "1e-16384", '"1e999999999999"', "-1e9999999", "9" * 131073, '"0e-99999"']
)
def test_a_decimal_out_of_range_is_refused_with_its_place(number: str) -> None:
    decoder = JsonDecoder(Stream("amounts", Amounts))
    with pytest.raises(RecordRefused, match=r"more digits than PostgreSQL's numeric holds .* - at `\$\.amount`"):
        decoder.decode(f'{{"event_time": "2026-01-01T00:00:00Z", "amount": {number}}}'.encode())


@pytest.mark.parametrize("number", ["1.0", "1e0", "-0.0", "1e400", str(2**63), '"1"', "true"])
@pytest.mark.parametrize("time", TIMES)
def test_a_number_that_is_no_int_is_refused_with_its_place(number: str, time: str) -> None:
    decoder = JsonDecoder(Stream("amounts", Amounts))
    with pytest.raises(RecordRefused, match=r" - at `\$\.whole`"):
        decoder.decode(f'{{"event_time": "{time}", "amount": 1, "whole": {number}}}'.encode())


def test_a_column_that_would_round_stops_the_stream_and_is_named(database_url: str) -> None:
    with Bench(database_url, Stream("amounts", Amounts)) as bench:
        bench.begin().sql("ALTER TABLE amounts ALTER amount TYPE numeric(6, 2)")
        with pytest.raises(SchemaMismatch, match=r"column amount is numeric\(6,2\)"):
            bench.write([b'{"event_time": "2026-01-01T00:00:00Z", "amount": 12345.6}'])
        assert bench.letters() == {}

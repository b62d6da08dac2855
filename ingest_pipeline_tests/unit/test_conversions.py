"""Values go to a narrower column unchanged, or not at all."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.postgres import conversions
from ingest_pipeline.postgres.conversions import DOES_NOT_FIT, Convert
from ingest_pipeline_tests.samples import STEADY

MOMENT = datetime(2026, 1, 1, 0, 0, 0, 123000, UTC)
KEPT: list[tuple[Convert, list[Any], list[Any]]] = [
    (conversions.text_of_length(3), ["", "abc", "😀😀😀"], ["abcd", "ab  "]),
    (conversions.integer_of_bytes(2), [-32768, 32767], [-32769, 32768, 1 << 63]),
    (conversions.integer_of_bytes(4), [-(1 << 31), (1 << 31) - 1], [-(1 << 31) - 1, 1 << 31]),
    (conversions.real, [0.0, 0.1, -3.4e38, 1e-45, math.inf], [3.5e38, -1e39, 1e-46]),
    (
        conversions.numeric_of(4, 2),
        [Decimal("99.99"), Decimal("1.500"), Decimal("0E+9")],
        [Decimal(100), Decimal("0.001"), Decimal("-99.995")],
    ),
    (conversions.numeric_of(2, -3), [Decimal(99000)], [Decimal(99500), Decimal(100000)]),
    (conversions.numeric_of(2, 4), [Decimal("0.0099")], [Decimal("0.01"), Decimal("0.00001")]),
    (conversions.time_of_precision(3), [MOMENT], [MOMENT.replace(microsecond=1)]),
    (conversions.time_of_precision(6), [MOMENT.replace(microsecond=1)], []),
]


@pytest.mark.parametrize(("convert", "kept", "refused"), KEPT)
def test_the_bounds_of_a_type(convert: Convert, kept: list[Any], refused: list[Any]) -> None:
    assert [convert(value) for value in kept] == kept
    for value in refused:
        with pytest.raises(DOES_NOT_FIT):
            convert(value)


@STEADY
@given(st.decimals(-(10**30), 10**30), st.integers(1, 20), st.integers(0, 20))
def test_a_number_is_refused_exactly_when_it_would_be_rounded_or_overflow(
    value: Decimal, precision: int, scale: int
) -> None:
    units = Fraction(value) * 10**scale
    fits = units.denominator == 1 and abs(units) < 10**precision
    check: Callable[[Decimal], Decimal] = conversions.numeric_of(precision, scale)
    try:
        check(value)
    except DOES_NOT_FIT:
        assert not fits
    else:
        assert fits


def test_a_time_without_zone_is_the_clock_of_its_zone() -> None:
    convert = conversions.time_without_zone("Asia/Kolkata")
    assert convert(MOMENT) == datetime(2026, 1, 1, 5, 30, 0, 123000)
    assert convert(MOMENT.astimezone(ZoneInfo("America/New_York"))) == convert(MOMENT)
    with pytest.raises(DOES_NOT_FIT):
        convert(datetime.max.replace(tzinfo=UTC))
    with pytest.raises(DOES_NOT_FIT):
        convert(MOMENT.replace(tzinfo=None))


def test_an_array_comes_from_a_list_or_from_its_json() -> None:
    convert = conversions.array_of(conversions.integer_of_bytes(2), list[int | None])
    assert convert(msgspec.Raw(b"[1, null]")) == convert([1, None]) == [1, None]
    with pytest.raises(DOES_NOT_FIT):
        convert([1 << 15])

"""Converts a row's values to the column types of an existing table.

A value that a column cannot hold unchanged raises an error, and the record becomes a dead letter. PostgreSQL would
round or cut some of these values, and the driver would write other bits.
"""

import decimal
import struct
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

Convert = Callable[[Any], Any]
DOES_NOT_FIT = (ValueError, ArithmeticError)
"""Errors of a Convert. The errors of decimals are ArithmeticErrors."""
_MICROSECOND_DIGITS = 6


def text_of_length(longest: int) -> Convert:
    def convert(value: str) -> str:
        if len(value) > longest:
            raise ValueError
        return value

    return convert


def integer_of_bytes(size: int) -> Convert:
    low, high = -(1 << 8 * size - 1), (1 << 8 * size - 1) - 1

    def convert(value: int) -> int:
        if not low <= value <= high:
            raise ValueError
        return value

    return convert


def real(value: float) -> float:
    """Refuses numbers out of range. Others keep about 6 digits."""
    if struct.unpack(">f", struct.pack(">f", value))[0] == 0 and value != 0:
        raise ValueError
    return value


def numeric_of(precision: int, scale: int) -> Convert:
    """Refuses numbers that PostgreSQL would round."""
    context = decimal.Context(
        prec=precision, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[decimal.Inexact, decimal.InvalidOperation]
    )
    unit = Decimal(1).scaleb(-scale)

    def convert(value: Decimal) -> Decimal:
        value.quantize(unit, context=context)
        return value

    return convert


def time_of_precision(digits: int) -> Convert:
    step = 10 ** (_MICROSECOND_DIGITS - digits)

    def convert(value: datetime) -> datetime:
        if value.microsecond % step:
            raise ValueError
        return value

    return convert


def time_without_zone(zone: str) -> Convert:
    """The clock of the zone at this instant. Refuses a time without a zone, as a transform may return."""
    clock = ZoneInfo(zone)

    def convert(value: datetime) -> datetime:
        if value.tzinfo is None:  # astimezone would take this machine's zone
            raise ValueError
        return value.astimezone(clock).replace(tzinfo=None)

    return convert


def array_of(element: Convert | None, declared: Any) -> Convert:
    """A list of the driver from a list or from its JSON text, of the declared type."""
    decode = msgspec.json.Decoder(declared).decode

    def convert(value: Any) -> list[Any]:
        items = decode(value) if isinstance(value, msgspec.Raw) else value
        return items if element is None else [None if item is None else element(item) for item in items]

    return convert


def in_turn(*steps: Convert | None) -> Convert | None:
    """A Convert of several. None without any."""
    left = [step for step in steps if step is not None]
    if len(left) < 2:
        return left[0] if left else None

    def convert(value: Any) -> Any:
        for step in left:
            value = step(value)
        return value

    return convert

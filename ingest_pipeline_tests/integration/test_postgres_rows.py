"""COPY and executemany store the same rows of all field types, singly and in batches."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import plain


class Everything(msgspec.Struct):
    event_time: datetime
    text: str | None = None
    whole: int | None = None
    real: float | None = None
    yes: bool | None = None
    day: date | None = None
    exact: Decimal | None = None
    id: UUID | None = None
    object: dict[str, Any] | None = None
    array: list[Any] | None = None
    raw: bytes | None = None


EVERYTHING = Stream("everything", Everything)
FIELDS = [item.name for item in EVERYTHING.fields]
NOW = datetime(2026, 1, 1, 12, 30, 15, 123456, UTC)
VALUES: dict[str, list[Any]] = {
    "event_time": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), NOW],
    "text": ["", "a", "é€𝄞\t\n\\N\\.'\"", "\x01\x7f\u2028\ufffd", "x" * 100_000],
    "whole": [0, 1, -1, 32767, 32768, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63)],
    "real": [0.0, -0.0, 0.1, 5e-324, 1.7976931348623157e308, -1e22, 3.0],
    "yes": [True, False],
    "day": [date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29)],
    "exact": [
        Decimal(text) for text in ("0", "-0.00", "1.10", "12345678901234567890.123456789", "1e30", "1e-30", "-7")
    ],
    "id": [UUID(int=0), UUID(int=2**128 - 1), UUID("12345678-1234-5678-1234-567812345678")],
    "object": [{}, {"a": None, "é": [1, 2.5, {"b": "\t"}], "big": 2**70, "t": True}, {"": ""}],
    "array": [[], [None], [[], {}, "", 0, 1.5, False, "𝄞"]],
    "raw": [b"", b"\x00\xff\\x00", bytes(range(256))],
}
EVENTS = [
    Everything(event_time=NOW),
    *(Everything(**{"event_time": NOW, name: value}) for name, values in VALUES.items() for value in values),
    Everything(**{name: values[-1] for name, values in VALUES.items()}),
]
KAFKA_TIMES = [None, 0, -62_135_596_800_000, 253_402_300_799_999, 1_700_000_000_123, 1_700_000_000_000_000]


def records() -> list[Any]:
    """Every event, with the Kafka timestamps in turn."""
    return [
        MemoryMessage(0, n, 0, msgspec.json.encode(event), timestamp_ms=KAFKA_TIMES[n % len(KAFKA_TIMES)])
        for n, event in enumerate(EVENTS)
    ]


def stored(url: str, method: str, size: int) -> list[Any]:
    """The table's contents after batches of this size, with types and exact text."""
    with Bench(url, EVERYTHING, method=method) as bench:
        bench.begin()
        left = records()
        while left:
            bench.session.write(bench.batch(left[:size]))
            left = left[size:]
        assert bench.letters() == {}
        columns = ", ".join(f'"{name}", "{name}"::text' for name in FIELDS)
        rows = bench.sql(
            f"SELECT {columns}, kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp"
            " FROM everything ORDER BY kafka_offset"
        )
        bench.sql("DROP TABLE everything; DROP SCHEMA ingest CASCADE")
        return rows


def test_both_methods_store_the_same_one_by_one_and_together(database_url: str) -> None:
    rows = stored(database_url, "copy", len(EVENTS))
    decode = JsonDecoder(EVERYTHING).decode
    for row, event in zip(rows, EVENTS, strict=True):
        assert row[: 2 * len(FIELDS) : 2] == plain(decode(msgspec.json.encode(event)))
    for method, size in (
        ("copy", 1),
        ("copy", 7),
        ("executemany", 1),
        ("executemany", 7),
        ("executemany", len(EVENTS)),
    ):
        assert stored(database_url, method, size) == rows, (method, size)


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_what_postgresql_or_the_driver_cannot_hold_costs_its_record(database_url: str, method: str) -> None:
    """Numbers outside `numeric`, and nesting that the decoder can read but the driver cannot write."""

    def event(name: str, text: str) -> bytes:
        return f'{{"event_time": "2026-01-01T00:00:00Z", "{name}": {text}}}'.encode()

    good = [event("exact", text) for text in ("1e131071", "1e-16383", '"-1e1000"', "9" * 131072)]
    bad = [event("exact", text) for text in ("1e131072", "1e-16384", '"1e999999999999"', "-1e9999999", "9" * 131073)]
    deep = [event("array", "[" * depth + '"\\n"' + "]" * depth) for depth in (500, 900, *range(930, 1010, 4), 5000)]
    with Bench(database_url, EVERYTHING, method=method) as bench:
        bench.begin()
        bench.write([*good, *bad])
        assert bench.offsets() == [0, 1, 2, 3]
        assert list(bench.letters()) == [4, 5, 6, 7, 8]
        bench.write(deep)
        following, rows, letters = bench.counters()
        assert (following, rows + letters) == (9 + len(deep), 9 + len(deep))
        assert 9 in bench.offsets()
        reasons = {reason for reason, _ in list(bench.letters().values())[5:]}
        unsent = "value cannot be sent to PostgreSQL (RecursionError)"
        assert reasons <= {"nested too deeply", "nested too deeply - at `$.array`", unsent}


def test_kafka_timestamps(database_url: str) -> None:
    rows = stored(database_url, "copy", len(EVENTS))
    timestamps = [row[-1] for row in rows[: len(KAFKA_TIMES)]]
    assert timestamps == [
        None,
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999000, UTC),
        datetime(2023, 11, 14, 22, 13, 20, 123000, UTC),
        None,
    ]


def test_ingested_at_is_the_databases_time(database_url: str) -> None:
    with Bench(database_url, EVERYTHING) as bench:
        bench.begin()
        bench.write([msgspec.json.encode(EVENTS[0])])
        assert bench.sql("SELECT ingested_at BETWEEN now() - interval '1 minute' AND now() FROM everything") == [True]

"""jsonb holds every number as sent, digit by digit, on every way into the table."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused
from ingest_pipeline.core.ledger import Redriven, Replayed
from ingest_pipeline.core.rows import RecordRules, decode_batch
from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import message


class Inner(msgspec.Struct):
    tree: dict
    levels: dict[str, float] | None = None


class Documents(msgspec.Struct):
    event_time: datetime
    tree: dict[str, Any]
    path: list
    inner: Inner | None = None
    levels: list[float] | None = None
    numbers: dict[str, list[int | None]] = {}


DOCUMENTS = Stream("documents", Documents, extra_column="extra")
TIMES = ["2026-01-01T00:00:00Z", "2026-01-01 00:00", "2026-01-01T00:00:00.1234567Z"]
NUMBERS = [
    *("12345678901234567.89", "0.1234567890123456789012345", "1.10", "-0.0", "-0", "0e5", "1E2", "1e-7", "9" * 400),
    *("1e400", "-1e400", "1e-400", str(2**64 + 1), str(-(2**70)), "100000000000000000000000.5", "5e-324", "1e131071"),
]
ODD = ['{"a": 1, "a": 2.50}', '"\\u00e9\\ud83d\\ude00\\/\\n"', '"\\\\u0000"', "null", "true", '[[], {}, ""]', '"\x7f"']


def sent(tree: str, time: str = TIMES[0]) -> bytes:
    """The JSON in all columns that keep it."""
    return (
        f'{{"event_time": "{time}", "tree": {{"k": {tree}}}, "path": [{tree} , 1], "more": {tree},'
        f' "inner": {{"tree": {{"é": {tree}}}, "below": [{tree}]}}}}'
    ).encode()


def kept(text: str) -> dict[str, Any]:
    tree = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    return {
        "tree": {"k": tree},
        "path": [tree, 1],
        "inner_tree": {"é": tree},
        "inner_levels": None,
        "levels": None,
        "numbers": {},
        "extra": {"more": tree, "inner": {"below": [tree]}},
    }


COLUMNS = [item.name for item in DOCUMENTS.fields if item.name != "event_time"] + ["extra"]


def stored(bench: Bench) -> list[dict[str, Any]]:
    """The rows' JSON as text, which psycopg does not parse."""
    texts = ", ".join(f'"{name}"::text' for name in COLUMNS)
    rows = bench.sql(f"SELECT {texts} FROM documents ORDER BY kafka_offset")
    return [
        {
            name: None if text is None else json.loads(text, parse_float=Decimal, parse_int=Decimal)
            for name, text in zip(COLUMNS, row, strict=True)
        }
        for row in rows
    ]


EXPECTED = [kept(text) for text in (*NUMBERS, *ODD) for _ in TIMES]
VALUES = [sent(text, time) for text in (*NUMBERS, *ODD) for time in TIMES]


@pytest.mark.parametrize("method", ["copy", "executemany"])
@pytest.mark.parametrize("at_once", [True, False])
def test_every_digit_is_kept(database_url: str, method: str, at_once: bool) -> None:
    with Bench(database_url, DOCUMENTS, method=method) as bench:
        bench.begin()
        decoder = JsonDecoder(DOCUMENTS)
        records: Any = [message(0, n, value) for n, value in enumerate(VALUES)]
        more: Any = {"decode_many": decoder.decode_many} if at_once else {}
        batch = decode_batch(records, {}, bench.session.positions, decode=decoder.decode, rules=RecordRules(), **more)
        assert batch is not None
        bench.session.write(batch)
        assert bench.letters() == {}
        assert stored(bench) == EXPECTED
        scale = bench.sql("SELECT DISTINCT tree->>'k' FROM documents WHERE tree->>'k' LIKE '1.1%'")
        assert scale == ["1.10"]


def test_a_redrive_keeps_every_digit(database_url: str) -> None:
    with Bench(database_url, DOCUMENTS) as bench:
        bench.begin()
        bench.refuse(VALUES, value_limit=1 << 20)
        assert bench.redrive() == Redriven(stored=len(VALUES))
        assert stored(bench) == EXPECTED


def test_a_replay_keeps_every_digit(database_url: str) -> None:
    with Bench(database_url, DOCUMENTS) as bench:
        bench.begin()
        bench.write(VALUES)
        bench.sql("DELETE FROM documents")
        assert bench.replay(VALUES) == Replayed(stored=len(VALUES))
        assert stored(bench) == EXPECTED


BAD = [
    *('"\\u0000"', '{"a\\u0000b": 1}', '"\\ud800"', '"\\udc00\\ud800"', '"\xff"', "NaN", "Infinity", "-Infinity", "01"),
    *('"a\tb"', '"\\x41"', "1.", ".5", "tru", "[1,]", "1e131072", "1e999999999", "[" * 9_000 + "1" + "]" * 9_000),
]
PLACES = [
    b'{"event_time": "2026-01-01T00:00:00Z", "tree": {"k": %s}, "path": []}',
    b'{"event_time": "2026-01-01T00:00:00Z", "tree": {}, "path": [%s]}',
    b'{"event_time": "2026-01-01", "tree": {}, "path": [], "inner": {"tree": {"k": [%s]}}}',
    b'{"event_time": "2026-01-01T00:00:00Z", "tree": {}, "path": [], "more": %s}',
    b'{"event_time": "2026-01-01", "tree": {}, "path": [], "inner": {"tree": {}, "more": %s}}',
]


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_what_jsonb_cannot_hold_costs_its_record_and_no_other(database_url: str, method: str) -> None:
    with Bench(database_url, DOCUMENTS, method=method) as bench:
        bench.begin()
        good = sent("1")
        bad = [place % (b'"\xff"' if text == '"\xff"' else text.encode()) for text in BAD for place in PLACES]
        bench.write([value for refused in bad for value in (good, refused)])
        assert len(stored(bench)) == len(bad)
        assert list(bench.letters()) == list(range(1, 2 * len(bad), 2))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ('"tree": 1, "path": []', "Expected `object`, got `int` - at `$.tree`"),
        ('"tree": null, "path": []', "Expected `object`, got `null` - at `$.tree`"),
        ('"tree": {}, "path": {}', "Expected `array`, got `object` - at `$.path`"),
        ('"tree": {}, "path": [], "levels": ["a"]', "Expected `float`, got `str` - at `$.levels[...]`"),
        ('"tree": {}, "path": [], "levels": [1e999]', "Number out of range - at `$.levels[...]`"),
        ('"tree": {}, "path": [], "inner": {"tree": {}, "levels": {"a": "x"}}', "at `$.inner.levels[...]`"),
        ('"tree": {}, "path": [], "numbers": {"a": [1.0]}', "Expected `int | null`, got `float` - at `$.numbers"),
        ('"tree": {"a": "b\\u0000"}, "path": []', "NUL character, which PostgreSQL cannot store - at `$.tree`"),
    ],
)
@pytest.mark.parametrize("time", TIMES)
def test_the_declared_type_holds_and_the_reason_names_the_place(fields: str, reason: str, time: str) -> None:
    decoder = JsonDecoder(DOCUMENTS)
    value = f'{{"event_time": "{time}", {fields}}}'.encode()
    assert decoder.decode_many([sent("1"), value, sent("2")])[1] == [1]
    with pytest.raises(RecordRefused) as refused:
        decoder.decode(value)
    assert reason.replace("[...]", "") in refused.value.message.replace("[...]", "").replace("[0]", "")


def test_null_is_no_json_null(database_url: str) -> None:
    with Bench(database_url, DOCUMENTS) as bench:
        bench.begin()
        bench.write([b'{"event_time": "2026-01-01T00:00:00Z", "tree": {}, "path": [], "levels": null, "inner": null}'])
        assert bench.sql("SELECT count(*) FROM documents WHERE levels IS NULL AND inner_tree IS NULL") == [1]


class Checked(msgspec.Struct):
    event_time: datetime
    tree: dict

    def __post_init__(self) -> None:
        if self.tree.pop("bad", None) is not None:
            raise ValueError
        self.tree["seen"] = True


def test_a_check_sees_the_values_and_may_change_them(database_url: str) -> None:
    with Bench(database_url, Stream("checked", Checked)) as bench:
        bench.begin()
        start = '{"event_time": "2026-01-01T00:00:00Z", "tree": '
        bench.write([f'{start}{{"a": 1.5}}}}'.encode(), f'{start}{{"bad": 1}}}}'.encode()])
        assert bench.sql("SELECT tree FROM checked") == [{"a": 1.5, "seen": True}]
        assert list(bench.letters()) == [1]

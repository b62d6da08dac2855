"""A bad record of any kind costs one record: a dead letter with all that is needed to try again."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import pytest

from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.conftest import PRICE
from ingest_pipeline_tests.orchestration.records import Record, prices

pytestmark = pytest.mark.kafka
AT = b'"timestamp": "2026-01-01T00:00:00Z"'


class Bad(NamedTuple):
    value: bytes
    stage: str
    reason: str
    sqlstate: str | None = None


BAD = [
    Bad(b"", "decode", "truncated"),
    Bad(b"\xff\xfe", "decode", "malformed"),
    Bad(b'{"symbol": "\xff", "price": 1, ' + AT + b"}", "decode", "UTF-8"),
    Bad(b'{"symbol": "A", "price": 1.5, ' + AT, "decode", "truncated"),
    Bad(b'{"symbol": "A", "price": "dear", ' + AT + b"}", "decode", "Expected `float`, got `str` - at `$.price`"),
    Bad(b'{"symbol": "A", "price": null, ' + AT + b"}", "decode", "Expected `float`, got `null` - at `$.price`"),
    Bad(b'{"symbol": "A", ' + AT + b"}", "decode", "missing required field `price`"),
    Bad(b'{"symbol": "A", "price": NaN, ' + AT + b"}", "decode", "invalid character"),
    Bad(b'[{"symbol": "A"}]', "decode", "Expected `object`, got `array`: the value is a list"),
    Bad(b"\0\0\0\0\7\2A", "decode", "starts with a zero byte, as a schema registry's format does: format=Avro()"),
    Bad(b"A,1.5,2026-01-01T00:00:00Z", "decode", "a line of CSV, which format=Csv() reads"),
    Bad(b'{"symbol": "A", "price": 1, "timestamp": 1767225600}', "decode", 'Annotated[datetime, Epoch("ms")]'),
    Bad(b'{"symbol": "A", "price": 1, "timestamp": "yesterday"}', "timestamp", "ISO 8601"),
    Bad(b'{"symbol": "A", "price": 1, "timestamp": "2026-01-01T00:00:00"}', "timestamp", "without a time zone"),
    Bad(b'{"symbol": "A\\u0000", "price": 1, ' + AT + b"}", "value", "NUL"),
    Bad(b'{"symbol": "A", "price": -1, ' + AT + b"}", "insert", "not_negative", "23514"),
    Bad(b'{"symbol": "TWICE", "price": 1, ' + AT + b"}", "insert", "only_once", "23505"),
    Bad(b'{"symbol": "A", "price": 0, ' + AT + b"}", "insert", "division by zero", "22012"),
]
CONSTRAINTS = """alter table price add constraint not_negative check (price >= 0),
    add constraint reciprocal check (100 / price is not null)"""
ONLY_ONCE = "create unique index only_once on price (symbol) where symbol = 'TWICE'"


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_each_becomes_a_dead_letter_and_its_neighbours_rows(make_bench: Callable[..., Bench], method: str) -> None:
    bench = make_bench([PRICE], partitions=1, NAIVE_TIMESTAMPS="reject", WRITE_METHOD=method, BATCH_TIMEOUT="1")
    bench.drain()
    bench.query(CONSTRAINTS)
    bench.query(ONLY_ONCE)
    records = [Record(BAD[-2].value, 0)]  # the first of its name is good
    for number, bad in enumerate(BAD):
        headers = (("trace", b"%d" % number), ("trace", b"\xff"), ("empty", None))
        records += [*prices(3, partitions=1), Record(bad.value, 0, b"key %d" % number, headers)]
    records.append(Record(None, 0, b"a tombstone"))
    bench.produce(records)
    run_id = bench.drain()

    letters = bench.query(
        """select kafka_offset, value, value_bytes, value_sha256, truncated, key, headers, stage, reason, sqlstate,
                  stream, topic, kafka_partition, run_id, status, kafka_timestamp_ms > 0
           from ingest.dead_letter order by kafka_offset"""
    )
    assert len(letters) == len(BAD)
    for number, (bad, letter) in enumerate(zip(BAD, letters, strict=True)):
        offset = 1 + number * 4 + 3
        assert letter[:6] == (
            offset,
            bad.value,
            len(bad.value),
            hashlib.sha256(bad.value).digest(),
            False,
            b"key %d" % number,
        )
        first = ["trace", {0: "MA==", 1: "MQ=="}.get(number, letter[6][0][1])]
        assert letter[6] == [first, ["trace", "/w=="], ["empty", None]]
        assert letter[7] == bad.stage, letter
        assert bad.reason.lower() in letter[8].lower(), letter
        assert letter[9] == bad.sqlstate, letter
        assert letter[10:] == ("price", bench.stream.topic, 0, run_id, "open", True)
    stored = bench.query("select kafka_offset from price order by kafka_offset")
    assert stored == [number for number in range(1 + 4 * len(BAD)) if number == 0 or number % 4]
    counted = bench.query('select next_offset, "rows", dead_letters, skipped, absent, lost from ingest.position')
    assert counted == [(len(records), 1 + 3 * len(BAD), len(BAD), 1, 0, 0)]
    assert bench.outcome(run_id) == ("caught-up", str(1 + 3 * len(BAD)))


def test_reasons_quote_no_value(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench([PRICE], partitions=1)
    bench.produce([Record(b'{"symbol": "s3cr3t", "price": "s3cr3t", "timestamp": "s3cr3t"}', 0)])
    run_id = bench.drain()
    (reason,) = bench.query("select reason from ingest.dead_letter")
    assert "s3cr3t" not in reason
    assert "s3cr3t" not in bench.said(run_id)

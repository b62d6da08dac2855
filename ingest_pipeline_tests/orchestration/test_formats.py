"""Streams of several formats in one shared run, on real Kafka and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest

from ingest_pipeline import Csv, Epoch, Stream, TimeFormat
from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.orchestration.bench import Bench, failure
from ingest_pipeline_tests.orchestration.records import Record

pytestmark = pytest.mark.kafka
AT = datetime(2026, 1, 31, 5, 30, tzinfo=UTC)
MS = 1_769_837_400_000


class Line(msgspec.Struct):
    device: str
    level: float | None
    at: Annotated[datetime, TimeFormat("%d.%m.%Y %H:%M", "Europe/Berlin")]


class Customer(msgspec.Struct):
    id: int
    changed_at: Annotated[datetime, Epoch("ms")]
    operation: str = msgspec.field(name="__op")


class Alarm(msgspec.Struct):
    code: int
    kind: str = msgspec.field(name="ce_type")


class Sample(msgspec.Struct):
    level: Annotated[int, msgspec.Meta(ge=0)]


STREAMS = [
    Stream("line", Line, format=Csv(";"), job="mixed"),
    Stream("customer", Customer, envelope="debezium", job="mixed"),
    Stream("alarm", Alarm, envelope="cloudevents", job="mixed"),
    Stream("sample", Sample, many=True, job="mixed"),
]


def change(operation: str, after: Any) -> bytes:
    return json.dumps({"op": operation, "after": after, "source": {"ts_ms": MS}}).encode()


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_every_format_stores_its_good_records_and_keeps_its_bad_ones(
    make_bench: Callable[..., Bench], method: str
) -> None:
    mixed = make_bench(STREAMS, partitions=1, WRITE_METHOD=method)
    line, customer, alarm, sample = mixed.streams
    mixed.produce([Record(b"a;1.5;31.01.2026 06:30", 0), Record(b"b;x", 0), Record(b"c;;31.01.2026 06:30", 0)], line)
    after = {"id": 1, "changed_at": MS}
    changes = [change("c", after), change("d", None), b"{}", change("u", after)]
    mixed.produce([*(Record(value, 0) for value in changes), Record(None, 0)], customer)
    event = {"specversion": "1.0", "type": "alarm.on", "data": {"code": 7}}
    binary = [("ce_specversion", b"1.0"), ("ce_type", b"alarm.off")]
    alarms = [
        Record(json.dumps(event).encode(), 0),
        Record(b'{"code": 7}', 0),
        Record(b'{"code": 8}', 0, headers=binary),
    ]
    mixed.produce(alarms, alarm)
    arrays = [b'[{"level": 1}, {"level": 2}]', b"[]", b'[{"level": 3}, {"level": -1}]', b'[{"level": 4}]']
    mixed.produce([Record(value, 0) for value in arrays], sample)
    job = mixed.definitions.resolve_job_def(tags.job_name("mixed"))
    run_tags = {tags.DRAINS: "mixed", tags.SHARD: "0/1"}
    result = job.execute_in_process(instance=mixed.instance, tags=run_tags, raise_on_error=False)
    assert result.success, failure(result)
    assert mixed.query("SELECT device, level, at FROM line ORDER BY kafka_offset") == [("a", 1.5, AT), ("c", None, AT)]
    rows = mixed.query("SELECT id, changed_at, operation FROM customer ORDER BY kafka_offset")
    assert rows == [(1, AT, "c"), (1, AT, "u")]
    assert mixed.query("SELECT code, kind FROM alarm ORDER BY code") == [(7, "alarm.on"), (8, "alarm.off")]
    rows = mixed.query("SELECT kafka_offset, kafka_ordinal, level FROM sample ORDER BY 1, 2")
    assert rows == [(0, 0, 1), (0, 1, 2), (3, 0, 4)]
    reasons = mixed.query("SELECT reason FROM ingest.dead_letter WHERE stream = 'sample'")
    assert reasons == ["Expected `int` >= 0 - at `$[1].level`"]
    counts = "SELECT stream, next_offset, rows, dead_letters, skipped FROM ingest.position ORDER BY stream"
    expected = [("alarm", 3, 2, 1, 0), ("customer", 5, 2, 1, 2), ("line", 3, 2, 1, 0), ("sample", 4, 2, 1, 1)]
    assert mixed.query(counts) == expected

"""A stream of one's own, with every type and every column that it may have: declared here, run end to end."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import pytest
from msgspec import Struct, field

from ingest_pipeline.core.fields import AsJson
from ingest_pipeline.core.roles import Role
from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.orchestration.bench import Bench, metadata
from ingest_pipeline_tests.orchestration.records import Record
from ingest_pipeline_tests.orchestration.test_operator_jobs import job


class Stand(Struct):
    city: str
    seen: datetime = field(name="seenAt")


class Shop(Struct):
    name: str
    stand: Stand | None = None


class Locker(Struct):
    number: int
    size: str = "small"


class Trip(Struct):
    """A trip of a hired bicycle."""

    bicycle: str
    stations: int
    kilometres: float
    helmet: bool
    event_time: datetime = field(name="endedAt")
    day: date
    fare: Decimal
    trip_id: UUID
    weather: dict[str, float]
    path: list[int]
    signature: bytes
    rider: str | None = None
    tip: Decimal | None = None
    coupon: dict | None = None
    shop: Shop | None = None
    locker: Annotated[Locker, AsJson] | None = None


FULL = {
    "bicycle": "Zoë's \t\\N",
    "stations": 2**63 - 1,
    "kilometres": 3.25,
    "helmet": True,
    "endedAt": "2026-03-01T12:00:00.000001+02:00",
    "day": "2026-03-01",
    "fare": "12.340000000000000000001",
    "trip_id": "12345678-1234-5678-1234-567812345678",
    "weather": {"°C": 21.5},
    "path": [1, 2, 3],
    "signature": "AAH/",
    "rider": "ann",
    "tip": "0.5",
    "coupon": {"a": [None, True]},
    "shop": {"name": "Fix", "stand": {"city": "Rome", "seenAt": "2026-03-01 12:00+02"}},
    "locker": {"number": 2**70, "other": None},
}
STORED = (
    "Zoë's \t\\N",
    2**63 - 1,
    3.25,
    True,
    datetime(2026, 3, 1, 10, 0, 0, 1, tzinfo=UTC),
    date(2026, 3, 1),
    Decimal("12.340000000000000000001"),
    UUID("12345678-1234-5678-1234-567812345678"),
    {"°C": 21.5},
    [1, 2, 3],
    b"\x00\x01\xff",
)
STORED_OPTIONAL = (
    "ann",
    Decimal("0.5"),
    {"a": [None, True]},
    "Fix",
    "Rome",
    datetime(2026, 3, 1, 10, tzinfo=UTC),
    {"number": 2**70, "size": "small"},
)
TRIPS = Stream(
    "trip",
    Trip,
    table="trips",
    key_column="key",
    headers_column="headers",
    extra_column="extra",
    id_column="id",
)
OPTIONAL = ("rider", "tip", "coupon", "shop", "locker")
COLUMNS = """bicycle, stations, kilometres, helmet, event_time, day, fare, trip_id, weather, path, signature,
    rider, tip, coupon, shop_name, shop_stand_city, shop_stand_seen, locker"""


@pytest.mark.kafka
@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_it_runs_end_to_end(make_bench: Callable[..., Bench], method: str) -> None:
    bench = make_bench([TRIPS], partitions=1, TRIP_WRITE_METHOD=method)
    bare = {name: value for name, value in FULL.items() if name not in OPTIONAL}
    bad_inside = {**FULL, "shop": {"name": "Fix", "stand": {"city": "Rome", "seenAt": "soon"}}}
    bench.produce(
        [
            Record(json.dumps({**FULL, "gear": [7]}).encode(), 0, b"k\xff", [("trace", b"\xff"), ("trace", None)]),
            Record(json.dumps({**FULL, "stations": 2**63}).encode(), 0),
            Record(json.dumps(bare).encode(), 0),
            Record(json.dumps(bad_inside).encode(), 0),
        ]
    )
    (request,) = bench.tick().run_requests
    assert request.tags["ingest/stream"] == "trip"
    result = bench.by_sensor(**request.tags)
    assert result.success
    assert (metadata(result, bench.stream)["rows"], metadata(result, bench.stream)["dead_letters"]) == (2, 2)
    rows = bench.query(f"select {COLUMNS} from trips order by kafka_offset")
    assert rows == [
        (*STORED, *STORED_OPTIONAL),
        (*STORED, *[None] * len(STORED_OPTIONAL)),
    ]
    assert bench.query("select kafka_offset, stage, reason from ingest.dead_letter order by 1") == [
        (1, "decode", "Expected `int` <= 9223372036854775807 - at `$.stations`"),
        (3, "timestamp", "not an ISO 8601 timestamp - at `$.shop.stand.seenAt`"),
    ]
    assert bench.query("select id, key, headers, extra from trips order by kafka_offset") == [
        (1, b"k\xff", [["trace", "/w=="], ["trace", None]], {"gear": [7]}),
        (2, None, None, None),
    ]
    assert bench.tick().skip_message == "caught up: lag 0"


@pytest.mark.role(Role.OPERATOR)
@pytest.mark.kafka
def test_a_redrive_and_a_replay_give_its_rows_the_same_columns(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench([TRIPS], partitions=1, TRIP_WRITE_METHOD="copy")
    bench.clients.ledger(TRIPS).prepare()
    bench.query("alter table trips add constraint warm check (bicycle <> 'cold')")
    given = [("trace", b"x")]
    bench.produce(
        [
            Record(json.dumps({**FULL, "bicycle": name, "gear": 7}).encode(), 0, b"k", given)
            for name in ("cold", "warm", "hot")
        ]
    )
    bench.drain()
    assert bench.rows() == 2
    bench.query("alter table trips drop constraint warm")
    assert job(bench, "redrive_dead_letters", stream="trip", dry_run=False).success
    bench.query("delete from trips where bicycle = 'hot'")
    assert job(bench, "replay", stream="trip", partition=0, from_offset=0, to_offset=3, dry_run=False).success
    assert bench.query("select bicycle, key, headers, extra from trips order by kafka_offset") == [
        (name, b"k", [["trace", "eA=="]], {"gear": 7}) for name in ("cold", "warm", "hot")
    ]

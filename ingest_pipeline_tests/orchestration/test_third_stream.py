"""A stream of one's own, with every type a field may have: declared here, run end to end."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from msgspec import Struct, field

from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.orchestration.bench import Bench, metadata
from ingest_pipeline_tests.orchestration.records import Record


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
COLUMNS = """bicycle, stations, kilometres, helmet, event_time, day, fare, trip_id, weather, path, signature,
    rider, tip, coupon"""


@pytest.mark.kafka
@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_it_runs_end_to_end(bench: Callable[..., Bench], method: str) -> None:
    here = bench([Stream("trip", Trip, table="trips")], partitions=1, TRIP_WRITE_METHOD=method)
    bare = {name: value for name, value in FULL.items() if name not in ("rider", "tip", "coupon")}
    here.produce(
        [
            Record(json.dumps(FULL).encode(), 0),
            Record(json.dumps({**FULL, "stations": 2**63}).encode(), 0),
            Record(json.dumps(bare).encode(), 0),
        ]
    )
    (request,) = here.tick().run_requests
    assert request.tags["ingest/stream"] == "trip"
    result = here.by_sensor(**request.tags)
    assert result.success
    assert (metadata(result, here.stream)["rows"], metadata(result, here.stream)["dead_letters"]) == (2, 1)
    rows = here.query(f"select {COLUMNS} from trips order by kafka_offset")
    assert rows == [
        (*STORED, "ann", Decimal("0.5"), {"a": [None, True]}),
        (*STORED, None, None, None),
    ]
    assert here.query("select stage, kafka_offset from ingest.dead_letter") == [("decode", 1)]
    assert here.tick().skip_message == "caught up: lag 0"

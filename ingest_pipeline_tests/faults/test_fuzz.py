"""A short `make fuzz` with one seed, and proof that the oracle can fail."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.faults.fuzz import fuzz
from ingest_pipeline_tests.faults.fuzz_kinds import SPOILT, records
from ingest_pipeline_tests.faults.fuzz_oracle import letter_problem, needless_refusal, rows_problem, skip_problem
from ingest_pipeline_tests.faults.fuzz_records import FUZZED, Fuzzed
from ingest_pipeline_tests.faults.fuzz_world import FuzzWorld
from ingest_pipeline_tests.servers.broker import RealKafka

COUNT, SEED = 10_000, 1


@pytest.mark.kafka
@pytest.mark.faults
@pytest.mark.slow
def test_every_record_becomes_something(kafka_server: RealKafka, database_url: str, tmp_path: Path) -> None:
    with FuzzWorld.open(kafka_server, database_url, tmp_path) as world:
        assert fuzz(world, COUNT, SEED) == []
    for stream in world.streams:
        assert set(stream.kinds) == {"healthy", *(spoil.__name__ for spoil in SPOILT)}
        assert sum(became["row"] for kind, became in stream.kinds.items() if kind != "healthy") > COUNT / 200
        assert stream.kinds["healthy"].keys() == ({"row", "dead letter"} if stream.stream.headers_column else {"row"})
        assert {"decode", "timestamp", "value"} <= set(stream.stages)
        assert sum(sum(became.values()) for became in stream.kinds.values()) == COUNT / len(FUZZED)
    assert any(stream.stages["insert"] for stream in world.streams)


def test_a_seed_is_a_seed() -> None:
    for stream in FUZZED:
        assert records("1", stream, 200, 3) == records("1", stream, 200, 3)
        assert records("1", stream, 200, 3) != records("2", stream, 200, 3)


TEMPERATURE = FUZZED[0]
SENT = Fuzzed("healthy", b'{"device_id": "a", "temperature": 1.5, "timestamp": "2026-01-01T00:00:00.5+01:00"}')
ROW = (datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), "a", 1.5, datetime(2025, 12, 31, 23, 0, 0, 500_000, tzinfo=UTC))


SAMPLES, CHANGES = FUZZED[2:]
EVENT = b'{"at": "2026-01-01T00:00:00Z", "word": "a", "level": 1}'
STAMPED = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
SAMPLE = (datetime(2026, 1, 1, tzinfo=UTC), "a", 1.0, None)


def test_rows_of_an_array_are_judged_one_by_one() -> None:
    array = Fuzzed("healthy", b"[" + EVENT + b", " + EVENT + b"]")
    rows = [(STAMPED, 0, *SAMPLE), (STAMPED, 1, *SAMPLE)]
    assert rows_problem(SAMPLES, array, 1000, rows) is None
    for wrong in (rows[:1], [*rows, rows[1]], [rows[0], rows[0]], [rows[0], (STAMPED, 1, SAMPLE[0], "b", 1.0, None)]):
        assert rows_problem(SAMPLES, array, 1000, wrong) is not None


@pytest.mark.parametrize(
    ("stream", "value", "skipped"),
    [
        (SAMPLES, b"[]", True),
        (SAMPLES, EVENT, False),
        (CHANGES, b'{"op": "d"}', True),
        (CHANGES, b'{"op": "c", "after": null}', False),
        (TEMPERATURE, b"[]", False),
    ],
)
def test_only_a_record_without_an_event_may_be_skipped(stream: Stream, value: bytes, skipped: bool) -> None:
    assert (skip_problem(stream, Fuzzed("healthy", value)) is None) == skipped


def test_a_right_row_is_right() -> None:
    assert rows_problem(TEMPERATURE, SENT, 1000, [ROW]) is None


@pytest.mark.parametrize("place", range(4))
def test_a_wrong_row_is_found(place: int) -> None:
    others = (None, "b", 1.25, datetime(2026, 1, 1, tzinfo=UTC))
    assert rows_problem(TEMPERATURE, SENT, 1000, [(*ROW[:place], others[place], *ROW[place + 1 :])]) is not None


@pytest.mark.parametrize("value", [None, b"{", b'{"device_id": "a", "temperature": 1.5}'])
def test_a_row_of_what_cannot_be_one_is_found(value: bytes | None) -> None:
    assert rows_problem(TEMPERATURE, replace(SENT, value=value), 1000, [ROW]) is not None


def test_a_healthy_record_that_was_refused_is_found() -> None:
    letter = {"stage": "decode", "reason": "why", "headers": None}
    assert letter_problem(SENT, 1000, letter, 1024) is not None


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("20241128100530250", "row"), ("2026-12-31T23:59:59.9999999Z", "row"), ("2026-01-01 06:00:00 +0200", "letter")],
)
def test_a_timestamp_is_judged_without_the_products_reader(text: str, wrong: str) -> None:
    """The oracle rejects fromisoformat's reading of digits, rounded decimals, and a refused valid timestamp."""
    sent = replace(SENT, value=f'{{"device_id": "a", "temperature": 1.5, "timestamp": "{text}"}}'.encode())
    if wrong == "row":
        for stored in (datetime(2024, 11, 28, 0, 53, 2, 500_000, UTC), datetime(2027, 1, 1, tzinfo=UTC)):
            assert rows_problem(TEMPERATURE, sent, 1000, [(*ROW[:3], stored)]) is not None
    else:
        letter = {"stage": "timestamp", "reason": "not an ISO 8601 timestamp - at `$.timestamp`"}
        assert needless_refusal(TEMPERATURE, sent, letter) is not None
        assert needless_refusal(TEMPERATURE, replace(sent, value=b'{"timestamp": "soon"}'), letter) is None

"""Random batches of a keyed stream against a dict that is changed record by record."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline_tests.contract.keyed_worlds import LIMIT, KeyedWorld, NewWorld, keyed, level, new_worlds
from ingest_pipeline_tests.contract.stream_worlds import WORLDS
from ingest_pipeline_tests.samples import STEADY

RECORD = st.tuples(
    st.integers(0, 1),
    st.sampled_from("abc"),
    st.sampled_from(["write"] * 5 + ["delete", "broken", "refused"]),
    st.integers(0, 4),
)
Record = tuple[int, str, str, int]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"on_conflict": "ignore"},
    {"only_newer": "version"},
    {"deletes": True},
    {"deletes": True, "only_newer": "version"},
    {"deletes": True, "on_conflict": "ignore"},
]


@pytest.fixture(params=WORLDS)
def new_world(request: pytest.FixtureRequest) -> Iterator[NewWorld]:
    yield from new_worlds(request)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_any_batches_end_as_if_written_one_by_one(
    new_world: NewWorld, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    postgres: list[KeyedWorld] = []
    in_memory = request.node.callspec.params["new_world"] == "memory"

    @settings(STEADY, max_examples=100 if in_memory else 15)
    @given(st.lists(st.lists(RECORD, min_size=1, max_size=12), min_size=1, max_size=4))
    def check(batches: list[list[Record]]) -> None:
        if postgres:
            postgres[0].reset()
            world = postgres[0]
        else:
            world = new_world(keyed(**options))
            world.refuse_high_readings()
            if not in_memory:
                postgres.append(world)
        oracle: dict[str, tuple[int, int]] = {}
        broken = refused = 0
        for batch in batches:
            world.write(*((record[0], record[1], _value(record)) for record in batch))
            for record in batch:
                _apply(oracle, record, options)
            broken += sum(kind == "broken" for _, _, kind, _ in batch)
            refused += sum(kind == "refused" for _, _, kind, _ in batch)
        assert {device: row[:2] for device, row in world.rows().items()} == oracle
        rows, letters, skipped = world.counters()
        assert broken <= letters <= broken + refused
        assert rows + skipped + letters == sum(map(len, batches))
        before = world.rows()
        world.redrive()
        assert world.rows() == before

    check()


def _value(record: Record) -> bytes | None:
    _, device, kind, version = record
    return (
        None
        if kind == "delete"
        else b"{"
        if kind == "broken"
        else level(device, version, LIMIT if kind == "refused" else 0)
    )


def _apply(oracle: dict[str, tuple[int, int]], record: Record, options: dict[str, Any]) -> None:
    _, device, kind, version = record
    if kind == "delete":
        if options.get("deletes"):
            oracle.pop(device, None)
    elif kind == "write":
        stays = device in oracle and (
            options.get("on_conflict") == "ignore" or ("only_newer" in options and version < oracle[device][0])
        )
        if not stays:
            oracle[device] = (version, 0)

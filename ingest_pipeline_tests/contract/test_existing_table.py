"""A table without our columns: the ledger alone keeps exactly once, in memory and in PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable, Superseded
from ingest_pipeline.core.ledger import Redriven
from ingest_pipeline.testing import Fault
from ingest_pipeline_tests.contract.stream_worlds import WORLDS, StreamWorld, counters, stream_world
from ingest_pipeline_tests.samples import BAD, READING, good

CREATE = "CREATE TABLE reading (id serial, device_id text, temperature float8, event_time timestamptz)"


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[StreamWorld]:
    with stream_world(request, replace(READING, coordinates=False), CREATE) as made:
        made.check("not_seven", "temperature <> 7", lambda row: row[5] != 7)
        yield made


def devices(world: StreamWorld) -> list[str]:
    if world.in_memory:
        return sorted(row[4] for row in world.table.rows.values())
    return [device for (device,) in world.sql("SELECT device_id FROM reading ORDER BY 1")]


def test_good_rows_are_stored_and_bad_records_are_letters(world: StreamWorld) -> None:
    written = world.write(good("a"), BAD, good("b", 7), good("c"))
    assert (written.rows[0], written.dead_letters[0]) == (2, 2)
    assert devices(world) == ["a", "c"]
    assert counters(world) == (4, 2, 2, 0, 0)


def test_a_letter_is_redriven_once(world: StreamWorld) -> None:
    world.write(good("a"), good("b", 7))
    assert world.redrive() == Redriven(refused=1)
    world.drop_check("not_seven")
    assert world.redrive() == Redriven(stored=1)
    assert world.redrive() == Redriven()
    assert devices(world) == ["a", "b"]


@pytest.mark.parametrize("fault", Fault)
def test_a_batch_is_stored_once_by_the_ledger_alone(world: StreamWorld, fault: Fault) -> None:
    world.write(good("a"))
    batch = world.batch(good("b"), BAD)
    world.break_write(world.session, fault)
    with pytest.raises(DatabaseUnavailable):
        world.session.write(batch)
    written = world.session.recover(batch)
    assert (written is not None) == (fault is Fault.AFTER_COMMIT)
    if written is None:
        written = world.session.write(batch)
    assert (written.rows[0], written.dead_letters[0]) == (1, 1)
    world.write(good("c"))
    assert devices(world) == ["a", "b", "c"]
    assert counters(world) == (4, 3, 1, 0, 0)


def test_a_batch_of_another_position_writes_nothing(world: StreamWorld) -> None:
    batch = world.batch(good("a"))
    world.session.write(batch)
    with pytest.raises(Superseded):
        world.session.write(batch)
    assert devices(world) == ["a"]

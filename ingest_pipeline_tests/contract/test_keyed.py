"""A keyed table: upserts, older versions, deletions and refused rows."""

from collections.abc import Iterator
from contextlib import nullcontext

import psycopg
import pytest

from ingest_pipeline import JsonSchema
from ingest_pipeline.core.errors import DatabaseUnavailable, SchemaMismatch
from ingest_pipeline.core.ledger import Redriven, Replayed
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline.testing import Fault
from ingest_pipeline_tests.contract.keyed_worlds import LIMIT, NewWorld, keyed, level, new_worlds
from ingest_pipeline_tests.contract.stream_worlds import WORLDS


@pytest.fixture(params=WORLDS)
def new_world(request: pytest.FixtureRequest) -> Iterator[NewWorld]:
    yield from new_worlds(request)


def test_the_last_record_of_a_key_wins_in_a_batch_and_between_batches(new_world: NewWorld) -> None:
    world = new_world(keyed())
    world.write((0, "a", level("a", 1)), (0, "b", level("b", 1)), (0, "a", level("a", 2)))
    assert world.rows() == {"a": (2, 0, 0, 2), "b": (1, 0, 0, 1)}
    world.write((0, "b", level("b", 0)), (1, "c", level("c", 1)))
    assert world.rows() == {"a": (2, 0, 0, 2), "b": (0, 0, 0, 3), "c": (1, 0, 1, 0)}
    assert world.counters() == (5, 0, 0)


def test_an_older_version_is_skipped_and_an_equal_one_is_written(new_world: NewWorld) -> None:
    world = new_world(keyed(only_newer="version"))
    result = world.write((0, "a", level("a", 5)), (0, "a", level("a", 4)), (0, "b", level("b", 1)))
    assert (result.rows, result.dropped) == ({0: 2}, {0: 1})
    world.write((0, "a", level("a", 4)), (0, "b", level("b", 1, 7)), (1, "c", level("c", 1)))
    assert world.rows() == {"a": (5, 0, 0, 0), "b": (1, 7, 0, 4), "c": (1, 0, 1, 0)}
    assert world.counters() == (4, 0, 2)


def test_the_first_record_of_a_key_stays_with_ignore(new_world: NewWorld) -> None:
    world = new_world(keyed(on_conflict="ignore"))
    world.write((0, "a", level("a", 1)), (0, "a", level("a", 2)))
    world.write((0, "a", level("a", 3)), (0, "b", level("b", 1)))
    assert world.rows() == {"a": (1, 0, 0, 0), "b": (1, 0, 0, 3)}
    assert world.counters() == (2, 0, 2)


def test_a_tombstone_deletes_and_a_later_record_inserts_again(new_world: NewWorld) -> None:
    world = new_world(keyed(deletes=True, only_newer="version"))
    world.write((0, "a", level("a", 9)), (0, "b", level("b", 1)), (0, "c", level("c", 1)), (0, "c", None))
    assert world.rows().keys() == {"a", "b"}
    world.write((0, "a", None), (0, "a", level("a", 1)), (0, "b", None), (0, '"d"', None), (0, '{"device":"a"}', None))
    world.write((0, "a", level("a", 2)), (0, "a", None), (0, "a", level("a", 1)))
    assert world.rows() == {"a": (1, 0, 0, 11)}
    assert world.counters() == (12, 0, 0)


def test_a_tombstone_without_a_key_is_a_dead_letter(new_world: NewWorld) -> None:
    world = new_world(keyed(deletes=True))
    result = world.write((0, None, None), (0, '{"other":1}', None), (0, "a", level("a", 1)))
    assert result.reasons == [
        "the record has no key, so no row can be deleted",
        "in the record's key: Object missing required field `device`",
    ]
    assert world.rows().keys() == {"a"}


def test_a_tombstone_is_skipped_without_deletes(new_world: NewWorld) -> None:
    world = new_world(keyed())
    world.write((0, "a", level("a", 1)), (0, "a", None))
    assert world.rows().keys() == {"a"}
    assert world.counters() == (1, 0, 1)


def test_each_refused_row_is_one_dead_letter_and_the_row_before_it_stays(new_world: NewWorld) -> None:
    world = new_world(keyed())
    world.refuse_high_readings()
    good = [(0, f"d{i}", level(f"d{i}", i)) for i in range(40)]
    bad = [(0, f"d{i}", level(f"d{i}", 99, LIMIT)) for i in (3, 17)]
    result = world.write(*good[:20], bad[0], *good[20:], bad[1])
    assert result.dead_letters == {0: 2}
    assert {device: row[0] for device, row in world.rows().items()} == {f"d{i}": i for i in range(40)}
    assert world.counters() == (40, 2, 0)


def test_a_redriven_letter_is_stored_where_its_key_is_not_or_older(new_world: NewWorld) -> None:
    world = new_world(keyed())
    world.refuse_high_readings()
    world.write((0, "a", level("a", 1)), (0, "b", level("b", 2, LIMIT)))
    world.write((0, "a", level("a", 2, LIMIT)))
    world.accept_high_readings()
    assert world.redrive() == Redriven(stored=2)
    assert world.rows() == {"a": (2, LIMIT, 0, 2), "b": (2, LIMIT, 0, 1)}
    assert set(world.statuses().values()) == {"redriven"}


@pytest.mark.parametrize("options", [{}, {"on_conflict": "ignore"}, {"only_newer": "version"}], ids=str)
def test_a_redriven_letter_never_replaces_a_newer_row(new_world: NewWorld, options: dict[str, str]) -> None:
    world = new_world(keyed(**options))
    world.refuse_high_readings()
    world.write((0, "a", level("a", 1, LIMIT)), (1, "b", level("b", 3, LIMIT)))
    world.write((0, "a", level("a", 5)), (0, "b", level("b", 4)))
    world.accept_high_readings()
    before = world.rows()
    assert world.redrive() == Redriven(superseded=2)
    assert world.rows() == before == {"a": (5, 0, 0, 1), "b": (4, 0, 0, 2)}
    assert set(world.statuses().values()) == {"discarded"}
    assert world.redrive() == Redriven()


def test_a_redriven_letter_of_a_newer_version_replaces_a_row_of_a_later_offset(new_world: NewWorld) -> None:
    world = new_world(keyed(only_newer="version"))
    world.refuse_high_readings()
    world.write((0, "a", level("a", 9, LIMIT)))
    world.write((1, "a", level("a", 5)))
    world.accept_high_readings()
    assert world.redrive() == Redriven(stored=1)
    assert world.rows() == {"a": (9, LIMIT, 0, 0)}


def test_a_redrive_does_not_bring_back_a_deleted_row(new_world: NewWorld) -> None:
    world = new_world(keyed(deletes=True))
    world.refuse_high_readings()
    world.write((0, "a", level("a", 1, LIMIT)), (0, "b", b"{"), (0, "b", None), (0, "c", None))
    world.write((0, "a", None), (0, "c", level("c", 1, LIMIT)))
    world.accept_high_readings()
    assert world.redrive() == Redriven(stored=1)
    assert world.rows() == {"c": (1, LIMIT, 0, 5)}
    assert world.statuses() == {(0, 0): "discarded", (0, 1): "discarded", (0, 5): "redriven"}


def test_a_deletion_closes_a_letter_whose_key_has_the_same_value_in_other_bytes(new_world: NewWorld) -> None:
    world = new_world(keyed(deletes=True))
    world.refuse_high_readings()
    forms = ["a", '"a"', '{"device":"a"}', '{"x":1, "device" : "\\u0061"}', '{"schema":{},"payload":{"device":"a"}}']
    world.write(*((0, form, level("a", i, LIMIT)) for i, form in enumerate(forms)), (0, "b", level("b", 1, LIMIT)))
    world.write((0, '{"device": "a"}', None))
    assert world.statuses() == {(0, i): "open" if i == len(forms) else "discarded" for i in range(len(forms) + 1)}
    world.accept_high_readings()
    assert world.redrive() == Redriven(stored=1)
    assert world.rows().keys() == {"b"}


def test_keys_in_a_schema_registry_s_format_name_the_same_row(new_world: NewWorld) -> None:
    world = new_world(keyed(deletes=True, format=JsonSchema()))
    world.refuse_high_readings()
    in_header = ("__key_schema_id", b"\1" + b"g" * 16)
    keys = ['\0\0\0\0\7{"device":"a"}', '\0\0\0\0\10"a"', '{"device":"a"}']
    world.write(*((0, key, level("a", i, LIMIT)) for i, key in enumerate(keys)))
    world.write((0, keys[2], level("a", 4, LIMIT), in_header), (0, "\0\0{}", level("a", 5, LIMIT)))
    world.write((0, "b", level("b", 1)), (0, "b", level("b", 2, LIMIT)), (0, "\0\0\0\0\7{}", None))
    world.write((0, '{"device": "a"}', None, in_header), (0, '\0\0\0\0\7{"device":"b"}', None))
    assert world.rows() == {}
    assert [offset for (_, offset), status in world.statuses().items() if status == "open"] == [4, 7]
    world.accept_high_readings()
    assert world.redrive() == Redriven(refused=2)
    world.rekey({(0, i): '\0\0\0\0\7"a"' for i in range(8)})
    assert world.redrive() == Redriven(stored=2)
    assert world.rows() == {}


def test_a_letter_whose_record_key_is_not_the_row_is_not_redriven(new_world: NewWorld) -> None:
    world = new_world(keyed(deletes=True))
    world.refuse_high_readings()
    world.write((0, None, level("a", 1, LIMIT)), (0, "other", level("b", 1, LIMIT)))
    world.accept_high_readings()
    assert world.redrive() == Redriven(refused=2)
    assert world.rows() == {}


def test_a_deletion_that_could_not_be_read_is_redriven_unless_its_row_is_newer(new_world: NewWorld) -> None:
    world = new_world(keyed(deletes=True))
    world.write((0, "a", level("a", 1)), (0, "b", level("b", 1)))
    world.write((0, '{"device":1}', None), (0, '{"device":2}', None), (0, "b", level("b", 2)))
    assert set(world.statuses().values()) == {"open"}
    world.rekey({(0, 2): "a", (0, 3): "b"})
    assert world.redrive() == Redriven(stored=1, superseded=1)
    assert world.rows() == {"b": (2, 0, 0, 4)}


@pytest.mark.parametrize("partition", [0, 1])
def test_a_redriven_deletion_closes_letters_that_are_redriven_with_it(new_world: NewWorld, partition: int) -> None:
    world = new_world(keyed(deletes=True))
    world.refuse_high_readings()
    world.write((partition, "a", level("a", 1, LIMIT)), (0, '{"device":1}', None))
    world.accept_high_readings()
    deletion = (0, 1 - partition)
    world.rekey({(partition, 0): "a", deletion: "a"})
    world.redrive()
    assert world.rows() == {}
    assert world.statuses()[deletion] == "redriven"


def test_replay_stores_only_what_is_missing_or_older(new_world: NewWorld) -> None:
    world = new_world(keyed())
    world.write((0, "a", level("a", 1)), (0, "b", level("b", 1)), (0, "a", level("a", 2)), (0, "c", level("c", 1)))
    world.lose("b")
    world.lose("c")
    assert world.replay_part(0, 0, 2) == Replayed(stored=1, present=1)
    assert world.rows() == {"a": (2, 0, 0, 2), "b": (1, 0, 0, 1)}
    assert world.replay_part(0, 0, 4) == Replayed(stored=1, present=3)
    assert world.rows() == {"a": (2, 0, 0, 2), "b": (1, 0, 0, 1), "c": (1, 0, 0, 3)}


@pytest.mark.parametrize("fault", [Fault.BEFORE_COMMIT, Fault.AFTER_COMMIT], ids=str)
def test_a_lost_connection_writes_a_batch_once(new_world: NewWorld, fault: Fault) -> None:
    world = new_world(keyed(deletes=True))
    world.write((1, "c", level("c", 0)))  # its session makes the temporary table
    world.break_write(world.session, fault)
    batch = world.batch((0, "a", level("a", 1)), (0, "b", level("b", 1)), (0, "b", None), (1, "c", level("c", 1)))
    with pytest.raises(DatabaseUnavailable):
        world.session.write(batch)
    committed = world.session.recover(batch)
    assert (committed is None) == (fault is Fault.BEFORE_COMMIT)
    if committed is None:
        world.session.write(batch)
    world.write((0, "a", level("a", 2)))
    assert world.rows() == {"a": (2, 0, 0, 3), "c": (1, 0, 1, 1)}
    assert world.counters() == (6, 0, 0)


def test_an_existing_table_needs_a_unique_index_on_the_key(database_url: str) -> None:
    database, stream = Database(sqlalchemy_url(database_url)), keyed()
    with psycopg.connect(database_url, autocommit=True) as sql:
        PostgresLedger(database, stream).prepare()
        for change, usable in (
            ("DROP CONSTRAINT level_pkey", False),
            ("ADD UNIQUE (device, version)", False),
            ("ADD UNIQUE (device) DEFERRABLE", False),
            ("ADD UNIQUE (device)", True),
        ):
            sql.execute(f"ALTER TABLE level {change}".encode())
            with nullcontext() if usable else pytest.raises(SchemaMismatch, match=r'ADD UNIQUE \("device"\)$'):
                PostgresLedger(database, stream).prepare()
    database.dispose()

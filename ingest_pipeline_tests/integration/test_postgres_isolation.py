"""Exactly the refused records become dead letters. All others are stored, in order, and counted."""

import random
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable, LedgerConflict, NotPermitted, SchemaMismatch, UnknownFault
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres.session_settings import WRITING
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import BAD, message


class Item(msgspec.Struct):
    event_time: datetime
    name: str | None = None
    number: int = 0


ITEM = Stream("item", Item)
TRIGGER = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.number < 0 THEN RAISE 'the value is %, of %', NEW.number, NEW.name USING ERRCODE = '{state}'; END IF;
        RETURN NEW;
    END $$;
    CREATE {kind} TRIGGER refuse {when} INSERT ON item {deferred} FOR EACH ROW EXECUTE FUNCTION refuse()"""


IN_C = """
    CREATE TRIGGER refuse BEFORE INSERT ON item FOR EACH ROW WHEN (NEW.number < 0)
    EXECUTE FUNCTION suppress_redundant_updates_trigger()"""
"""PostgreSQL's own function refuses an INSERT. PostgreSQL's context has no line of a function written in C."""


def before(state: str) -> str:
    return TRIGGER.format(state=state, kind="", when="BEFORE", deferred="")


def deferred(state: str) -> str:
    return TRIGGER.format(state=state, kind="CONSTRAINT", when="AFTER", deferred="DEFERRABLE INITIALLY DEFERRED")


def item(name: str | None, number: int = 0) -> bytes:
    return msgspec.json.encode({"event_time": "2026-01-01T00:00:00Z", "name": name, "number": number})


@pytest.fixture(params=["copy", "executemany"])
def bench(request: pytest.FixtureRequest, database_url: str) -> Iterator[Bench]:
    with Bench(database_url, ITEM, method=request.param) as made:
        yield made.begin()


def refused(bench: Bench, values: list[bytes], bad: set[int]) -> dict[int, tuple[str, str | None]]:
    """Write one batch and check that exactly `bad` became dead letters. Returns their reasons and SQLSTATEs."""
    written = bench.write(values)
    good = [offset for offset in range(len(values)) if offset not in bad]
    letters = bench.letters()
    assert set(letters) == bad
    assert bench.offsets() == good
    assert bench.counters() == (len(values), len(good), len(bad))
    assert (sum(written.rows.values()), sum(written.dead_letters.values())) == (len(good), len(bad))
    assert sorted(written.reasons) == sorted(reason for reason, _ in letters.values())
    kept = bench.sql("SELECT kafka_offset, value FROM ingest.dead_letter")
    assert {offset: bytes(value) for offset, value in kept} == {offset: values[offset] for offset in bad}
    return letters


BAD_AT = {0, 3, 4, 7}
CASES: dict[str, tuple[str, Callable[[int], bytes], str, str]] = {
    "check": (
        "ALTER TABLE item ADD CONSTRAINT not_negative CHECK (number >= 0)",
        lambda n: item(f"n{n}", -n - 1),
        "23514",
        "check violation (23514), constraint not_negative",
    ),
    "length": (
        "ALTER TABLE item ADD CONSTRAINT short CHECK (length(name) <= 5)",
        lambda n: item("x" * 6),
        "23514",
        "check violation (23514), constraint short",
    ),
    "not null": (
        "ALTER TABLE item ALTER name SET NOT NULL",
        lambda n: item(None),
        "23502",
        "not null violation (23502), column name",
    ),
    "foreign key": (
        "CREATE TABLE parent (number bigint PRIMARY KEY); INSERT INTO parent VALUES (0);"
        "ALTER TABLE item ADD CONSTRAINT known FOREIGN KEY (number) REFERENCES parent",
        lambda n: item("orphan", 77),
        "23503",
        "foreign key violation (23503), constraint known",
    ),
    "deferred foreign key": (
        "CREATE TABLE parent (number bigint PRIMARY KEY); INSERT INTO parent VALUES (0);"
        "ALTER TABLE item ADD CONSTRAINT known FOREIGN KEY (number) REFERENCES parent DEFERRABLE INITIALLY DEFERRED",
        lambda n: item("orphan", 77),
        "23503",
        "foreign key violation (23503), constraint known",
    ),
    "trigger 22": (before("22023"), lambda n: item("secret", -1), "22023", "invalid parameter value (22023)"),
    "trigger 23": (before("23514"), lambda n: item("secret", -1), "23514", "check violation (23514)"),
    "trigger P0001": (before("P0001"), lambda n: item("secret", -1), "P0001", "raise exception (P0001)"),
    "trigger written in C": (IN_C, lambda n: item("secret", -1), "39P01", "trigger protocol violated (39P01)"),
    "trigger P0002": (before("P0002"), lambda n: item("secret", -1), "P0002", "no data found (P0002)"),
    "trigger P0004": (before("P0004"), lambda n: item("secret", -1), "P0004", "assert failure (P0004)"),
    "trigger 21000": (before("21000"), lambda n: item("secret", -1), "21000", "cardinality violation (21000)"),
    "trigger 20000": (before("20000"), lambda n: item("secret", -1), "20000", "case not found (20000)"),
    "trigger 38000": (before("38000"), lambda n: item("secret", -1), "38000", "external routine exception (38000)"),
    "trigger MY001": (before("MY001"), lambda n: item("secret", -1), "MY001", "an error of its own (MY001)"),
    "trigger 99001": (before("99001"), lambda n: item("secret", -1), "99001", "an error of its own (99001)"),
    "deferred trigger MY001": (
        deferred("MY001"),
        lambda n: item("secret", -1),
        "MY001",
        "an error of its own (MY001)",
    ),
    "check function": (
        "CREATE FUNCTION judge(n bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN ASSERT n >= 0; RETURN true;"
        " END $$; ALTER TABLE item ADD CONSTRAINT judged CHECK (judge(number))",
        lambda n: item("secret", -1),
        "P0004",
        "assert failure (P0004)",
    ),
    "more than one row": (
        "CREATE FUNCTION pick() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE x int; BEGIN"
        " SELECT y INTO STRICT x FROM generate_series(1, CASE WHEN new.number < 0 THEN 2 ELSE 1 END) y; RETURN new;"
        " END $$; CREATE TRIGGER pick BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION pick()",
        lambda n: item("secret", -1),
        "P0003",
        "too many rows (P0003)",
    ),
    "deferred trigger": (deferred("P0001"), lambda n: item("secret", -1), "P0001", "raise exception (P0001)"),
    "key too long": (
        "CREATE INDEX ON item (name)",
        lambda n: item(random.Random(n).randbytes(9000).hex()),
        "54000",
        "program limit exceeded (54000)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_exactly_the_refused_records_are_put_aside(bench: Bench, case: str) -> None:
    ddl, bad_value, state, reason = CASES[case]
    bench.sql(ddl)
    values = [bad_value(n) if n in BAD_AT else item(f"g{n}") for n in range(9)]
    assert refused(bench, values, BAD_AT) == dict.fromkeys(sorted(BAD_AT), (reason, state))


@pytest.mark.parametrize(
    "ddl",
    [
        "ALTER TABLE item ADD CONSTRAINT once UNIQUE (name)",
        "ALTER TABLE item ADD CONSTRAINT once UNIQUE (name) DEFERRABLE INITIALLY DEFERRED",
        "CREATE UNIQUE INDEX once ON item (lower(name))",
    ],
)
def test_of_equal_records_in_one_batch_the_first_is_stored(bench: Bench, ddl: str) -> None:
    bench.sql(ddl)
    values = [item(name) for name in "abacba"]
    letters = refused(bench, values, {2, 4, 5})
    assert set(letters.values()) == {("unique violation (23505), constraint once", "23505")}


def test_a_batch_of_nothing_but_refused_records(bench: Bench) -> None:
    bench.sql(CASES["check"][0])
    refused(bench, [item(None, -1)] * 250, set(range(250)))
    bench.write([item("after")])
    assert bench.offsets() == [250]


def test_a_value_that_cannot_be_sent_costs_its_record(bench: Bench) -> None:
    """A decoder that accepts NUL and lone surrogates. The shipped decoder refuses both."""

    def decode(value: bytes) -> tuple[Any, ...]:
        return datetime.fromisoformat("2026-01-01T00:00:00Z"), value.decode("utf-8", "surrogateescape"), 0

    values = [b"a", b"\x00", b"b", b"x\xff", b"c"]
    bench.session.write(bench.batch([message(0, n, value) for n, value in enumerate(values)], decode))
    assert bench.offsets() == [0, 2, 4]
    assert bench.counters() == (5, 3, 2)
    (nul, _), (surrogate, _) = bench.letters().values()
    assert nul in ("value cannot be sent to PostgreSQL (DataError)", "character not in repertoire (22021), column name")
    assert surrogate == "value cannot be sent to PostgreSQL (UnicodeEncodeError)"


def test_a_number_that_does_not_fit_costs_its_record(bench: Bench) -> None:
    """A decoder without bounds. The shipped decoder has bounds."""

    def decode(value: bytes) -> tuple[Any, ...]:
        return datetime.fromisoformat("2026-01-01T00:00:00Z"), "a", int(value)

    values = [b"1", b"9223372036854775808", b"2", b"-9223372036854775809", b"3"]
    bench.session.write(bench.batch([message(0, n, value) for n, value in enumerate(values)], decode))
    assert bench.offsets() == [0, 2, 4]
    assert bench.sql("SELECT number FROM item ORDER BY 1") == [1, 2, 3]


SLOW = """
    CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); RETURN new; END $$;
    CREATE TRIGGER slowly BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION slowly()"""


@pytest.mark.parametrize("numbers", [[0] * 100, [0] * 70 + [-1] + [0] * 29], ids=["all good", "one refused"])
@pytest.mark.parametrize("bench", ["copy"], indirect=True)
def test_a_batch_too_slow_for_one_copy_goes_by_several(
    bench: Bench, numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WRITING, "statement_timeout", "1s")
    bench.sql(CASES["check"][0])
    bench.sql(SLOW)
    batch = bench.batch([message(0, n, item("a", number)) for n, number in enumerate(numbers)])
    with pytest.raises(DatabaseUnavailable, match="57014"):
        bench.session.write(batch)
    assert bench.counters() == (0, 0, 0)
    assert bench.session.recover(batch) is None
    bench.session.write(batch)
    assert bench.counters() == (100, numbers.count(0), numbers.count(-1))


@pytest.mark.parametrize("case", ["check", "foreign key", "trigger P0001"])
@pytest.mark.parametrize("seed", range(2))
def test_any_records_of_a_batch_may_be_refused(bench: Bench, case: str, seed: int) -> None:
    chance = random.Random(f"{case} {seed}")
    bench.sql(CASES[case][0])
    bench.sql("ALTER TABLE item SET (autovacuum_enabled = off)")  # rows would fill what refused ones left, out of order
    offset, good, bad = 0, [], []
    for size, share in ((1, 0.5), (2, 0.5), (137, 0.02), (300, 0.1), (101, 0.9)):
        values = []
        for n in range(size):
            wrong = chance.random() < share
            (bad if wrong else good).append(offset + n)
            values.append(CASES[case][1](n) if wrong else item(f"g{n}"))
        bench.write(values)
        offset += size
    assert bench.offsets() == good
    assert list(bench.letters()) == bad
    assert bench.counters() == (offset, len(good), len(bad))


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("42703", SchemaMismatch),
        ("42P01", SchemaMismatch),
        ("22P03", SchemaMismatch),
        ("08P01", SchemaMismatch),
        ("42501", NotPermitted),
        ("53100", DatabaseUnavailable),
        ("40001", DatabaseUnavailable),
        ("XX000", UnknownFault),
        ("XX001", UnknownFault),
        ("0A000", UnknownFault),
    ],
)
def test_what_is_not_a_records_fault_stops_the_stream(bench: Bench, state: str, error: type[Exception]) -> None:
    bench.sql(before(state))
    with pytest.raises(error):
        bench.write([item("a"), item("b", -1)])
    assert bench.offsets() == []
    assert bench.letters() == {}
    assert bench.counters() == (0, 0, 0)
    if issubclass(error, DatabaseUnavailable):
        bench.session.recover(None)
    bench.sql("DROP TRIGGER refuse ON item")
    refused(bench, [item("a"), item("b", -1)], set())


def test_a_planted_row_is_no_dead_letter(bench: Bench) -> None:
    bench.sql(CASES["check"][0])
    bench.sql("INSERT INTO item (kafka_incarnation, kafka_partition, kafka_offset, event_time, number)"
              " VALUES (1, 0, 2, now(), 0)")  # fmt: skip
    with pytest.raises(LedgerConflict):
        bench.write([item("a"), item("b", -1), item("c")])
    assert bench.offsets() == [2]
    assert bench.letters() == {}
    assert bench.counters() == (0, 0, 0)


def test_a_refused_dead_letter_is_no_records_fault(bench: Bench) -> None:
    bench.sql("ALTER TABLE ingest.dead_letter ADD CONSTRAINT picky CHECK (kafka_offset <> 3)")
    with pytest.raises(UnknownFault, match=r"the ledger's own part of a batch: check violation .*picky"):
        bench.write([item("a"), BAD, item("b"), BAD, item("c")])
    assert bench.offsets() == []
    assert bench.letters() == {}
    bench.sql("ALTER TABLE ingest.dead_letter DROP CONSTRAINT picky")
    refused(bench, [item("a"), BAD, item("b"), BAD, item("c")], {1, 3})

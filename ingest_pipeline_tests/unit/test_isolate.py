"""Which rows are refused, whatever the errors hint at, and at what cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from ingest_pipeline.core.errors import DatabaseUnavailable, RecordRefused
from ingest_pipeline.core.record import EventRow
from ingest_pipeline.postgres.refused_rows import store_isolated
from ingest_pipeline_tests.samples import STEADY


class Table:
    """Stores rows under savepoints, as a connection does, and counts the attempts.

    `hint` gives the index that an error names, from the rows and the first bad one's index.
    """

    def __init__(
        self, bad: set[int], hint: Callable[[Sequence[EventRow], int], int | None], sqlstate: str | None = None
    ) -> None:
        self.bad, self.hint, self.sqlstate = bad, hint, sqlstate
        self.rows: list[int] = []
        self.tries = 0
        self._mark = 0

    def begin_nested(self) -> Table:
        self._mark = len(self.rows)
        return self

    def rollback(self) -> None:
        del self.rows[self._mark :]

    def commit(self) -> None:
        """Nothing to do: the rows stay."""

    def store(self, rows: Sequence[EventRow]) -> None:
        self.tries += 1
        for index, row in enumerate(rows):
            if row[2] in self.bad:
                raise RecordRefused("bad", index=self.hint(rows, index), sqlstate=self.sqlstate)
            self.rows.append(row[2])

    def isolate(self, count: int, rows_per_statement: int = 1 << 62, tried: bool = False) -> list[int]:
        """`tried`: all rows by one statement before, as a writer does."""
        rows: list[EventRow] = [(1, 0, offset, None) for offset in range(count)]
        first: RecordRefused | None = None
        if tried:
            try:
                self.store(rows)
            except RecordRefused as error:
                first = error
            self.rows.clear()
        refused = store_isolated(
            cast(Connection, self), rows, self.store, rows_per_statement=rows_per_statement, first=first
        )
        return [index for index, _ in refused]


def exact(rows: Sequence[EventRow], first: int) -> int | None:
    return first


def silent(rows: Sequence[EventRow], first: int) -> int | None:
    return None


@STEADY
@given(st.data(), st.integers(0, 400), st.sampled_from([1, 7, 100, 1 << 62]), st.booleans())
def test_exactly_the_bad_are_refused_and_the_order_is_kept(
    data: st.DataObject, count: int, rows_per_statement: int, tried: bool
) -> None:
    bad = data.draw(st.sets(st.integers(0, max(0, count - 1)), max_size=40)) if count else set()
    hints: Any = st.sampled_from([exact, silent, lambda rows, first: 0, lambda rows, first: len(rows) - 1])
    lying = st.integers(-2, 500).map(lambda index: lambda rows, first: index)
    table = Table(bad, data.draw(hints | lying))
    assert table.isolate(count, rows_per_statement, tried) == sorted(bad)
    assert table.rows == [offset for offset in range(count) if offset not in bad]


@pytest.mark.parametrize(
    ("hint", "sqlstate", "most"), [(exact, "23514", 26), (exact, "23505", 36), (silent, "23514", 200)]
)
def test_one_percent_bad_costs_few_statements(
    hint: Callable[[Sequence[EventRow], int], int | None], sqlstate: str, most: int
) -> None:
    table = Table(set(range(50, 1000, 100)), hint, sqlstate)
    assert table.isolate(1000) == sorted(table.bad)
    assert table.tries <= most


def test_the_error_of_the_previous_statement_saves_an_attempt() -> None:
    alone, after = (Table(set(range(50, 1000, 100)), exact, "23514") for _ in range(2))
    alone.isolate(1000)
    after.isolate(1000, tried=True)
    assert after.tries == alone.tries  # the one before included


def test_no_statement_of_more_rows_than_a_batch() -> None:
    sizes: list[int] = []

    def store(rows: Sequence[EventRow]) -> None:
        sizes.append(len(rows))
        if rows[0][2] <= 4_321 <= rows[-1][2]:
            raise RecordRefused("bad", index=4_321 - rows[0][2])

    rows: list[EventRow] = [(1, 0, offset, None) for offset in range(10_000)]
    first = RecordRefused("bad", index=4_321)
    connection = cast(Connection, Table(set(), exact))
    refused = store_isolated(connection, rows, store, rows_per_statement=1000, first=first)
    assert [index for index, _ in refused] == [4_321]
    assert max(sizes) == 1000


def test_a_row_that_collides_with_a_refused_one_is_stored() -> None:
    """The line of a key's violation is right, and yet that row is none that fails alone."""
    stored: list[int] = []

    def store(rows: Sequence[EventRow]) -> None:
        offsets = [row[2] for row in rows]
        if 3 in offsets and 5 in offsets:  # one key, and 3 is refused at the statement's end, as by a foreign key
            raise RecordRefused("the same key", index=offsets.index(5), sqlstate="23505")
        if 3 in offsets:
            raise RecordRefused("no such device", sqlstate="23503")
        stored.extend(offsets)

    refused = store_isolated(cast(Connection, Table(set(), exact)), [(1, 0, i, None) for i in range(10)], store)
    assert [index for index, _ in refused] == [3]
    assert stored == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_what_is_no_records_fault_ends_it() -> None:
    table = Table(set(), exact)

    def store(rows: Sequence[EventRow]) -> None:
        raise DatabaseUnavailable("gone")

    with pytest.raises(DatabaseUnavailable):
        store_isolated(cast(Connection, table), [(1, 0, 0, None)], store)

"""SQLAlchemy Core's executemany, sent as PostgreSQL's binary COPY.

The call is `connection.exec_driver_sql(insert, rows)`. A CopyPlan in the statement's execution options makes the
engine's event `do_executemany` use COPY. SQLAlchemy raises `do_execute` for a list with one row, so this module handles
both. Binary COPY checks no types. postgres/schema.py compares the columns' OIDs before the first batch of a connection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import length_hint
from typing import Any

import psycopg
from sqlalchemy import Engine, event

from .errors import UNSENDABLE, RowNotSent

OPTION = "ingest_copy"


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """`statement` is a COPY … FROM STDIN (FORMAT BINARY). `oids` are the types of a row's values, in order."""

    statement: str
    oids: tuple[int, ...]


def install(engine: Engine) -> None:
    event.listen(engine, "do_executemany", lambda cursor, _, rows, context: _carry(cursor, rows, context))
    event.listen(engine, "do_execute", lambda cursor, _, row, context: _carry(cursor, [row], context))


def _carry(cursor: psycopg.Cursor[Any], rows: Sequence[Any], context: Any) -> bool | None:
    plan = context.execution_options.get(OPTION) if context is not None else None
    if plan is None:
        return None
    copy_rows(cursor, plan, rows)
    return True


def copy_rows(cursor: psycopg.Cursor[Any], plan: CopyPlan, rows: Sequence[Sequence[Any]]) -> None:
    """Send the rows. Raises RowNotSent for a row that psycopg cannot convert."""
    left = iter(rows)
    with cursor.copy(plan.statement) as copy:
        copy.set_types(plan.oids)
        write_row = copy.write_row
        try:
            for row in left:
                write_row(row)
        except psycopg.OperationalError:
            raise
        except (psycopg.Error, *UNSENDABLE) as error:
            raise RowNotSent(len(rows) - length_hint(left) - 1) from error

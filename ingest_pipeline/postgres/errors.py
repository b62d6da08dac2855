"""Maps errors of PostgreSQL and psycopg to the product's errors, by connection state and SQLSTATE, never by message
text.

The SQLSTATE classes come from appendix A of PostgreSQL 18's manual. Messages never contain DETAIL or CONTEXT, because
both quote rows.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy.exc
from psycopg.errors import Diagnostic

from ..core.errors import (
    DatabaseUnavailable,
    IngestError,
    NotPermitted,
    RecordRefused,
    RefusalStage,
    SchemaMismatch,
    TableBusy,
    UnknownFault,
)
from .no_session import NoSession

_RECORD = ("22", "23", "54", "P0001", "44000")
_STOP = ("08P01", "22P03", "22P04", "42")
_ENVIRONMENT = ("08", "25006", "25P03", "25P04", "40", "53", "55P03", "57", "58")
MIGRATING = "migrating"
_BUSY = ("40001", "40P01", "55P03", "57014")
"""A serialization failure, a deadlock, and the time-outs of a lock and of a statement. The session goes on."""
_NEVER_A_RECORD = ("0A", "0B", "0L", "0P", "25", "26", "28", "2D", "34", "3B", "3D", "3F", "55006", "55P", "72", "F0",
                   "HV", "XX")  # fmt: skip
"""States of the server, the session or the code, such as an internal error, even inside a trigger."""
_ONLY_INSIDE = ("24", "55")
"""States of the session or the table outside a function. A trigger may raise them about a row."""
READ_ONLY = "25006"
READ_ONLY_ADVICE = (
    "the server takes no writes: it is a standby, or default_transaction_read_only is on. If DATABASE_URL names"
    " several hosts, target_session_attrs=read-write finds the primary"
)
_POOLER_ADVICE = "a pooler ended the session: let DATABASE_URL lead to PostgreSQL itself, or to a pool in session mode"
_CHECK = "23514"
"""PostgreSQL also raises this state for a row without a partition. It then names the table and no constraint."""
UNSENDABLE = (OverflowError, RecursionError, TypeError, ValueError)
"""Errors of Python's own conversions of a value."""
_NO_REPORT = psycopg.Error().diag
_CLIENT_REFUSALS = (*UNSENDABLE, psycopg.DataError, psycopg.ProgrammingError)
_COPY_LINE = re.compile(r"^COPY .*?, \D*(\d+)", re.MULTILINE)  # a trigger's own lines may come before
_COPY_COLUMN = re.compile(r"^COPY .*, line \d+, column ([^:\n]+)$", re.MULTILINE)


class RowNotSent(Exception):
    """psycopg could not convert a row. `index` is the row's place in the list, if known. The cause holds the reason."""

    def __init__(self, index: int | None) -> None:
        super().__init__("a row could not be sent")
        self.index = index


class DoesNotFit(Exception):
    """A column does not hold a value unchanged. The text is the reason, without the value."""


@contextmanager
def mapped_errors(doing: str, of_rows: bool = False) -> Iterator[None]:
    """Raise the product's errors instead of the driver's.

    Args:
        doing: the operation, for the message: "writing temperature".
        of_rows: the statement stores rows in an event table, so an error from a trigger is a record's fault. A trigger
            written in C leaves no line in PostgreSQL's CONTEXT, so the SQLSTATE alone decides.
    """
    try:
        yield
    except sqlalchemy.exc.DBAPIError as error:
        raise classified(error.orig or error, error.connection_invalidated, doing, of_rows) from error
    except (sqlalchemy.exc.TimeoutError, sqlalchemy.exc.ResourceClosedError) as error:
        raise DatabaseUnavailable(f"{doing}: no usable connection ({type(error).__name__})") from error
    except NoSession as error:
        raise DatabaseUnavailable(f"{doing}: {error.words}", sqlstate=error.sqlstate) from error
    except RowNotSent as error:
        raise _not_sent(error, doing) from error
    except psycopg.Error as error:
        raise classified(error, False, doing, of_rows) from error


def classified(error: BaseException, disconnected: bool, doing: str, of_rows: bool = False) -> IngestError:
    """The product's error for a driver's error. `disconnected`: the connection is gone."""
    state = getattr(error, "sqlstate", None)
    message = _first_line(error)
    if state is None and not disconnected and isinstance(error, _CLIENT_REFUSALS):
        return RecordRefused(_cannot_send(error), stage=RefusalStage.INSERT)
    if state is None:
        hint = "Check that it runs and that DATABASE_URL names it"
        return DatabaseUnavailable(f"{doing}: PostgreSQL is not reachable: {message}. {hint}", sqlstate=state)
    if state == READ_ONLY:
        return DatabaseUnavailable(f"{doing}: {state} {message}: {READ_ONLY_ADVICE}", sqlstate=state)
    if disconnected:
        advice = _POOLER_ADVICE if state == "08P01" else "PostgreSQL ended the session"
        return DatabaseUnavailable(f"{doing}: {state} {message}: {advice}", sqlstate=state)
    if _is(state, _STOP):
        if state == "42501":
            advice = "Grant it: `ingest check` prints the statement"
            if doing.startswith(MIGRATING):
                advice = "Grant it, or run `ingest migrate` as a role that may create schemas and tables"
            return NotPermitted(f"{doing}: {message}. {advice}", sqlstate=state)
        return SchemaMismatch(
            f"{doing}: {state} {message}. `ingest check` shows what differs and what mends it", sqlstate=state
        )
    if state in _BUSY:
        return TableBusy(f"{doing}: {state} {message}", sqlstate=state)
    if _is(state, _ENVIRONMENT):
        return DatabaseUnavailable(f"{doing}: {state} {message}", sqlstate=state)
    inside = _inside_function(error)
    of_a_row = of_rows and not _is(state, _NEVER_A_RECORD) and (inside or not _is(state, _ONLY_INSIDE))
    if _is(state, _RECORD) or of_a_row:
        return RecordRefused(
            _template(error, state),
            stage=RefusalStage.INSERT,
            sqlstate=state,
            index=_copy_index(error),
            column=None if inside else _diagnostic(error).column_name,
            without_partition=_is_without_partition(error, state),
        )
    return UnknownFault(f"{doing}: unexpected error {state}: {message}. It is not repeated blindly", sqlstate=state)


def _is(state: str, entries: tuple[str, ...]) -> bool:
    return any(state.startswith(entry) for entry in entries)


def _first_line(error: BaseException) -> str:
    """The primary message of libpq or the server, which quotes no row for the states that use this function.

    A trigger or another function may put row values into its message. For an error from a function the message is only
    the condition's name.
    """
    if _inside_function(error):
        return f"{_condition(error)}, inside a trigger or function (message left out: it may quote a record)"
    return str(_diagnostic(error).message_primary or error).strip().split("\n")[0]


def _diagnostic(error: BaseException) -> Diagnostic:
    """PostgreSQL's report. Without one, all of its fields are None."""
    return getattr(error, "diag", _NO_REPORT)


def _inside_function(error: BaseException) -> bool:
    """Whether a function raised the error: PostgreSQL's CONTEXT has a line for each function."""
    return any(not line.startswith("COPY ") for line in (_diagnostic(error).context or "").splitlines())


def _condition(error: BaseException) -> str:
    """`UniqueViolation` → "unique violation". psycopg has a class for every state but user-defined ones."""
    if type(error).__name__ in vars(psycopg):
        return "an error of its own"
    return re.sub(r"(?<!^)([A-Z])", r" \1", type(error).__name__).lower()


def _is_without_partition(error: BaseException, state: str) -> bool:
    return state == _CHECK and not _diagnostic(error).constraint_name and not _inside_function(error)


def _template(error: BaseException, state: str) -> str:
    """The reason without a value: the condition, and the column or constraint."""
    words, report = _condition(error), _diagnostic(error)
    if _is_without_partition(error, state):
        return f"no partition of table {report.table_name} for this row ({state}): create it, then redrive"
    if report.constraint_name:
        return f"{words} ({state}), constraint {report.constraint_name}"
    if column := report.column_name or _copied_column(report.context):
        return f"{words} ({state}), column {column}"
    return f"{words} ({state})"


def _copied_column(context: str | None) -> str | None:
    """The column whose value a binary COPY refused. A text COPY's line also holds the value and does not match."""
    columns = _COPY_COLUMN.findall(context or "")
    return columns[-1] if columns else None


def _copy_index(error: BaseException) -> int | None:
    """The row that a failed COPY names, counted from 0. Callers try this row alone, because the line is only a hint."""
    line = _COPY_LINE.search(_diagnostic(error).context or "")
    return int(line.group(1)) - 1 if line else None


def _not_sent(error: RowNotSent, doing: str) -> IngestError:
    cause = error.__cause__
    if isinstance(cause, DoesNotFit):
        return RecordRefused(str(cause), stage=RefusalStage.INSERT, index=error.index)
    if isinstance(cause, _CLIENT_REFUSALS):
        return RecordRefused(_cannot_send(cause), stage=RefusalStage.INSERT, index=error.index)
    return UnknownFault(f"{doing}: a row could not be sent ({type(cause).__name__})")


def _cannot_send(error: BaseException) -> str:
    return f"value cannot be sent to PostgreSQL ({type(error).__name__})"

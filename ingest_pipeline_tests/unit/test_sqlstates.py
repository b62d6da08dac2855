"""Every SQLSTATE that psycopg knows is a record's fault, the environment's, a stop, or unknown on purpose."""

from typing import Any

import psycopg
import pytest
import sqlalchemy.exc
from psycopg import errors

from ingest_pipeline.core.errors import (
    DatabaseUnavailable,
    IngestError,
    NotPermitted,
    RecordRefused,
    SchemaMismatch,
    TableBusy,
    UnknownFault,
)
from ingest_pipeline.postgres.errors import RowNotSent, classified, mapped_errors

STATES = sorted(kind.sqlstate for kind in vars(errors).values() if isinstance(getattr(kind, "sqlstate", None), str))

EXACT: dict[str, type[IngestError]] = {
    "08P01": SchemaMismatch,
    "22P03": SchemaMismatch,
    "22P04": SchemaMismatch,
    "42501": NotPermitted,
    "25006": DatabaseUnavailable,
    "25P03": DatabaseUnavailable,
    "25P04": DatabaseUnavailable,
    "40001": TableBusy,
    "40P01": TableBusy,
    "55P03": TableBusy,
    "57014": TableBusy,
    "44000": RecordRefused,
    "P0001": RecordRefused,
}
BY_CLASS: dict[str, type[IngestError]] = {
    "08": DatabaseUnavailable,
    "22": RecordRefused,
    "23": RecordRefused,
    "40": DatabaseUnavailable,
    "42": SchemaMismatch,
    "53": DatabaseUnavailable,
    "54": RecordRefused,
    "57": DatabaseUnavailable,
    "58": DatabaseUnavailable,
}


def fault(state: str, disconnected: bool = False) -> IngestError:
    return classified(errors.lookup(state)("server said\nDETAIL: secret"), disconnected, "writing")


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_its_class(state: str) -> None:
    expected = EXACT.get(state) or BY_CLASS.get(state[:2], UnknownFault)
    error = fault(state)
    assert type(error) is expected
    assert error.sqlstate == state
    assert "secret" not in error.message
    assert "\n" not in error.message
    if expected is not RecordRefused:
        assert "writing" in error.message
    if expected is UnknownFault:
        assert state in error.message


def test_psycopg_knows_every_class_that_is_named_here() -> None:
    assert len(STATES) > 200
    assert set(EXACT) <= set(STATES)
    assert set(BY_CLASS) <= {state[:2] for state in STATES}


@pytest.mark.parametrize("state", STATES)
def test_a_lost_connection_blames_no_record(state: str) -> None:
    assert type(fault(state, disconnected=True)) is DatabaseUnavailable


@pytest.mark.parametrize("state", ["99999", "ZZ001", "0Z00X"])
def test_an_unknown_sqlstate_stops_the_stream_and_is_named(state: str) -> None:
    class New(psycopg.DatabaseError):
        sqlstate = state

    error = classified(New("what"), False, "writing")
    assert type(error) is UnknownFault
    assert state in error.message


@pytest.mark.parametrize("kind", [psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError])
def test_without_a_state_it_is_the_connection(kind: type[psycopg.Error]) -> None:
    assert type(classified(kind("server closed the connection"), False, "writing")) is DatabaseUnavailable


@pytest.mark.parametrize(
    "error",
    [psycopg.DataError("x"), psycopg.ProgrammingError("x"), OverflowError(), TypeError(), UnicodeError(), ValueError()],
)
def test_what_python_cannot_send_is_the_records_fault(error: Exception) -> None:
    refusal = classified(error, False, "writing")
    assert type(refusal) is RecordRefused
    assert refusal.message == f"value cannot be sent to PostgreSQL ({type(error).__name__})"


# --- diagnostics ----------------------------------------------------------------------------------------------------


class Diagnosed(errors.UniqueViolation):
    """An error with the fields a server would send."""

    def __init__(self, **fields: str) -> None:
        super().__init__("duplicate key: secret")
        self._fields = fields

    @property
    def diag(self) -> Any:
        names = ("message_primary", "constraint_name", "column_name", "context")
        return type("Diag", (), {name: self._fields.get(name) for name in names})


@pytest.mark.parametrize(
    ("fields", "message", "index"),
    [
        ({}, "diagnosed (23505)", None),
        ({"column_name": "a"}, "diagnosed (23505), column a", None),
        ({"constraint_name": "c", "column_name": "a"}, "diagnosed (23505), constraint c", None),
        ({"context": "COPY reading, line 778"}, "diagnosed (23505)", 777),
        ({"context": 'COPY reading, line 3, column a: "5, line 9"'}, "diagnosed (23505)", 2),
        ({"context": "COPY t2, Zeile 12"}, "diagnosed (23505)", 11),
        ({"context": "PL/pgSQL function f() line 3 at RAISE"}, "diagnosed (23505)", None),
        ({"context": "PL/pgSQL function f() line 3 at RAISE\nCOPY item, line 4"}, "diagnosed (23505)", 3),
    ],
)
def test_a_reason_names_the_place_and_no_value(fields: dict[str, str], message: str, index: int | None) -> None:
    error = classified(Diagnosed(**fields), False, "writing")
    assert isinstance(error, RecordRefused)
    assert (error.message, error.index) == (message, index)


class Raised(Diagnosed):
    sqlstate = "53100"


@pytest.mark.parametrize(
    ("context", "told"),
    [
        (None, "53100 the disk is full"),
        ("COPY item, line 4", "53100 the disk is full"),
        ('COPY item, line 4, column a: "x\ny"', "53100 raised, inside a trigger or function"),
        ("PL/pgSQL function f() line 3 at RAISE", "53100 raised, inside a trigger or function"),
        ("PL/pgSQL function f() line 3 at RAISE\nCOPY item, line 4", "53100 raised, inside a trigger or function"),
    ],
)
def test_the_words_of_a_trigger_are_left_out(context: str | None, told: str) -> None:
    fields = {"message_primary": "the disk is full"} | ({"context": context} if context else {})
    assert classified(Raised(**fields), False, "writing").message.startswith(f"writing: {told}")


INSIDE = "PL/pgSQL function f() line 3 at RAISE\nCOPY item, line 4"
NEVER_A_RECORD = ("0A", "0B", "0L", "0P", "25", "26", "28", "2D", "34", "3B", "3D", "3F", "55006", "55P", "72", "F0",
                  "HV", "XX")  # fmt: skip
OWN_STATES = ["MY001", "U0001", "P0003", "P0999", "99999", "00001", "ZZZZZ", "7A000"]


def raised_inside(state: str, of_rows: bool, context: str | None = INSIDE) -> IngestError:
    kind = type("Thrown", (Diagnosed,), {"sqlstate": state})
    return classified(kind(**({"context": context} if context else {})), False, "writing", of_rows)


@pytest.mark.parametrize("state", [*STATES, *OWN_STATES])
def test_what_a_trigger_raises_for_a_row_is_the_records_fault(state: str) -> None:
    """Unless the state speaks of the environment, of types and rights, or of the server itself."""
    expected = EXACT.get(state) or BY_CLASS.get(state[:2])
    if expected is None:
        expected = UnknownFault if state.startswith(NEVER_A_RECORD) else RecordRefused
    assert type(raised_inside(state, of_rows=True)) is expected


@pytest.mark.parametrize("state", ["P0002", "P0004", "21000", *OWN_STATES])
def test_elsewhere_such_a_state_stops_and_is_named(state: str) -> None:
    error = raised_inside(state, of_rows=False)
    assert type(error) is UnknownFault
    assert state in error.message


@pytest.mark.parametrize("state", ["09000", "27000", "38000", "39P01", "P0002", "21000", *OWN_STATES])
@pytest.mark.parametrize("context", [None, "COPY item, line 4"])
def test_a_trigger_written_in_c_leaves_no_line_in_the_context(state: str, context: str | None) -> None:
    error = raised_inside(state, True, context)
    assert isinstance(error, RecordRefused)
    assert error.message == f"thrown ({state})"


@pytest.mark.parametrize("state", ["24000", "55000", *NEVER_A_RECORD])
@pytest.mark.parametrize("context", [None, "COPY item, line 4"])
def test_what_speaks_of_session_or_table_is_no_records_fault(state: str, context: str | None) -> None:
    assert not isinstance(raised_inside(state, True, context), RecordRefused)


def test_a_reason_of_an_own_state_names_it_and_its_line() -> None:
    error = raised_inside("MY001", of_rows=True)
    assert isinstance(error, RecordRefused)
    assert (error.message, error.sqlstate, error.index) == ("thrown (MY001)", "MY001", 3)
    assert "secret" not in error.message


def test_a_refusal_of_the_server_says_nothing_of_the_driver() -> None:
    with pytest.raises(RecordRefused) as caught, mapped_errors("writing"):
        raise RowNotSent(4) from OverflowError("secret")
    assert (caught.value.index, caught.value.stage) == (4, "insert")
    assert "secret" not in caught.value.message


def test_a_row_that_is_not_sent_for_another_reason_stops() -> None:
    with pytest.raises(UnknownFault), mapped_errors("writing"):
        raise RowNotSent(4) from psycopg.InternalError("secret")


def test_sqlalchemys_own_errors() -> None:
    with pytest.raises(DatabaseUnavailable), mapped_errors("asking"):
        raise sqlalchemy.exc.TimeoutError("QueuePool limit")
    with pytest.raises(RecordRefused), mapped_errors("asking"):
        raise sqlalchemy.exc.DBAPIError("SELECT", {}, errors.CheckViolation("x"))
    with pytest.raises(DatabaseUnavailable), mapped_errors("asking"):
        raise sqlalchemy.exc.DBAPIError("SELECT", {}, errors.CheckViolation("x"), connection_invalidated=True)

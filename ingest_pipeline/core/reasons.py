"""Why a record was refused, as a template: it names a type or a JSON path, never a value."""

from __future__ import annotations

import re

import msgspec

_BYTE_POSITION = re.compile(r" \(byte \d+\)")
_QUOTED = re.compile(r"(unknown field|Invalid (?:enum )?value) (?:`.*`|'.*'|\".*\"|-?\d+)(?= - at|$)", re.DOTALL)
_PLACE = " - at `$"


def refusal(error: Exception) -> str:
    """Why msgspec refused a value: by itself, or since a Struct's own check did, whose words may quote the record.

    msgspec makes a ValidationError of a check's ValueError and TypeError, with their text and with them as its cause;
    what else a check raises comes as it is, through a frame of its own.
    """
    frames = error.__traceback__
    if error.__cause__ is not None or (frames is not None and frames.tb_next is not None):
        return by_its_check(error.__cause__ or error)
    return reason_of(error)


def by_its_check(error: BaseException) -> str:
    return f"refused by the event's own check ({type(error).__name__})"


def reason_of(error: BaseException) -> str:
    """The error as a template. msgspec names types and paths; Python's texts may quote: only the class is kept."""
    if isinstance(error, msgspec.MsgspecError):
        return _QUOTED.sub(r"\1", _BYTE_POSITION.sub("", str(error)))
    if isinstance(error, UnicodeError):
        return "not valid UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"cannot be decoded ({type(error).__name__})"


def inside(reason: str, path: str) -> str:
    """A reason found in one field's JSON, told with that field's path."""
    what, _, below = reason.partition(_PLACE)
    return f"{what}{_PLACE}.{path}{below or '`'}"

"""Reasons of refusals. A reason names a type or a JSON path, never a value."""

import re

import msgspec

_BYTE_POSITION = re.compile(r" \(byte \d+\)")
_QUOTED = re.compile(r"(unknown field|Invalid (?:enum )?value) (?:`.*`|'.*'|\".*\"|-?\d+)(?= - at|$)", re.DOTALL)
_PATH = " - at `$"
UNDECODABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""Errors of msgspec's decoders about the bytes of a record."""


def refusal(error: Exception, frames: int = 0) -> str:
    """The reason of an exception from msgspec's decoder, which may come from a Struct's own check.

    A check's message may quote the record and is left out. msgspec turns a check's ValueError or TypeError into a
    ValidationError with a cause. Other exceptions of a check arrive unchanged, with one more traceback frame.

    Args:
        frames: Python frames between the caller and msgspec.
    """
    traceback = error.__traceback__
    for _ in range(frames):
        traceback = traceback and traceback.tb_next
    if error.__cause__ is not None or (traceback is not None and traceback.tb_next is not None):
        return by_its_check(error.__cause__ or error)
    return reason_of(error)


def by_its_check(error: BaseException) -> str:
    return f"refused by the event's own check ({type(error).__name__})"


def reason_of(error: BaseException) -> str:
    """msgspec's message without values. Other messages may quote a value, so only the exception's class is named."""
    if isinstance(error, msgspec.MsgspecError):
        return _QUOTED.sub(r"\1", _BYTE_POSITION.sub("", str(error)))
    if isinstance(error, UnicodeError):
        return "not valid UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"cannot be decoded ({type(error).__name__})"


def in_element(reason: str, index: int) -> str:
    """The reason with the path from the array's root. `reason` names a path below the element, or none."""
    message, _, below = reason.partition(_PATH)
    return f"{message}{_PATH}[{index}]{below or '`'}"


def inside(reason: str, path: str) -> str:
    """The reason with the path from the event's root. `reason` names a path below the field."""
    message, _, below = reason.partition(_PATH)
    return f"{message}{_PATH}.{path}{below or '`'}"

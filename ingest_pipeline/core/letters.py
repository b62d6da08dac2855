"""Message → dead letter: the original bytes and coordinates, and why no row could be made of them."""

from __future__ import annotations

import base64
import hashlib
from operator import methodcaller

from .errors import RecordRefused
from .record import NO_TIMESTAMP_MS, DeadLetter, Message

_NO_TIMESTAMP = 0
# Not `message.headers()`: Python's specialised call of a C method takes what it returns unlooked at, and
# confluent-kafka 2.16 returns a list with NULL pointers beside its error. Using them ends the process.
_read_headers = methodcaller("headers")
HEADERS_UNREADABLE = "; its headers could not be read (a key is not UTF-8)"


def dead_letter(message: Message, incarnation: int, refused: RecordRefused, value_limit: int) -> DeadLetter:
    """A dead letter for a refused message.

    Args:
        value_limit: bytes of the value to keep; a longer one is cut, with its full length and SHA-256 beside it.
    """
    value = message.value()
    kind, timestamp_ms = message.timestamp()
    headers, note = _headers(message)
    return DeadLetter(
        partition=message.partition(),
        offset=message.offset(),
        incarnation=incarnation,
        timestamp_ms=None if kind == _NO_TIMESTAMP or timestamp_ms == NO_TIMESTAMP_MS else timestamp_ms,
        key=message.key(),
        value=None if value is None else value[:value_limit],
        value_bytes=0 if value is None else len(value),
        value_sha256=hashlib.sha256(value or b"").digest(),
        truncated=value is not None and len(value) > value_limit,
        headers=headers,
        stage=refused.stage,
        reason=refused.message + note,
        sqlstate=refused.sqlstate,
    )


def _headers(message: Message) -> tuple[list[list[str | None]] | None, str]:
    """Headers as [key, base64 of the value] pairs, in order and with repeats.

    Called once a message: confluent-kafka 2.16 raises SystemError for a key that is not UTF-8, and a second call for
    the same message hands out NULL pointers.
    """
    try:
        headers = _read_headers(message)
    except (SystemError, UnicodeError):
        return None, HEADERS_UNREADABLE
    if headers is None:
        return None, ""
    return [
        [key.replace("\0", "\ufffd"), None if value is None else base64.b64encode(_bytes(value)).decode()]
        for key, value in headers
    ], ""


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value

"""Message → dead letter: the original bytes, the coordinates and the reason of the refusal."""

import base64
import hashlib
from collections.abc import Sequence
from operator import methodcaller

from .errors import RecordRefused
from .record import NO_TIMESTAMP_MS, DeadLetter, Message

Headers = list[list[str | None]]
"""[key, base64 of the value] pairs in order. A key may repeat."""
_NO_TIMESTAMP = 0
# Not `message.headers()`: confluent-kafka 2.16 returns a list with NULL pointers together with an error. Python's
# specialised call of a C method does not check for the error, and using the list kills the process.
raw_headers = methodcaller("headers")
HEADERS_UNREADABLE = ". Its headers could not be read (a key is not UTF-8)"


def dead_letter(
    message: Message,
    incarnation: int,
    refused: RecordRefused,
    *,
    value_limit: int,
    headers_read: Sequence[Headers | None] = (),
) -> DeadLetter:
    """A dead letter for a refused message.

    Args:
        value_limit: bytes of the value to keep. The full length and the SHA-256 of a longer value are stored, too.
        headers_read: [the headers], if they have been read already. Reading them twice may kill the process.
    """
    value = message.value()
    kind, timestamp_ms = message.timestamp()
    headers, readable = (headers_read[0], True) if headers_read else read_headers(message)
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
        reason=refused.message + ("" if readable else HEADERS_UNREADABLE),
        sqlstate=refused.sqlstate,
    )


def read_headers(message: Message) -> tuple[Headers | None, bool]:
    """Returns (headers or None, whether the headers could be read).

    Call this once per message. confluent-kafka 2.16 raises SystemError for a key that is not UTF-8, and a second call
    for the same message returns NULL pointers.
    """
    try:
        headers = raw_headers(message)
    except (SystemError, UnicodeError):
        return None, False
    return encoded(headers), True


def encoded(headers: Sequence[tuple[str, bytes | str | None]] | None) -> Headers | None:
    if headers is None:
        return None
    return [
        [key.replace("\0", "\ufffd"), None if value is None else base64.b64encode(_bytes(value)).decode()]
        for key, value in headers
    ]


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value

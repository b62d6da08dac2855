"""What a row must hold, worked out again from the record's bytes by Python's own library."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.faults.fuzz_records import MAX_MS, Fuzzed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_MS = -62_135_596_800_000
_NONE_MS = -1
"""What Kafka calls no timestamp."""


def stamp(ms: int) -> datetime | None:
    """The column `kafka_timestamp`."""
    return _EPOCH + timedelta(milliseconds=ms) if _MIN_MS <= ms <= MAX_MS and ms != _NONE_MS else None


def row_problem(stream: Stream, record: Fuzzed, ms: int, row: Sequence[Any]) -> str | None:
    """What is wrong with a row (kafka_timestamp, then the fields); None when nothing is."""
    if record.value is None:
        return "a row of a tombstone"
    if row[0] != stamp(ms):
        return f"kafka_timestamp is {row[0]}, sent was {ms}"
    try:
        # The decoder does not look for broken UTF-8 in what it skips: foreign names and their values.
        event = json.loads(record.value.decode(errors="replace"), parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError) as error:
        # Python calls its own limit of recursion sooner than the decoder does.
        return None if isinstance(error, RecursionError) else f"a row of what is no JSON: {error}"
    for item, stored in zip(stream.fields, row[1:], strict=True):
        sent = event.get(item.json_name)
        if sent is None:
            problem = None if stored is None and item.nullable else "there, though not sent"
        else:
            problem = _difference(item.python_type, sent, stored)
        if problem:
            return f"{item.name} ({item.python_type.__name__}): {problem}"
    return None


def _difference(kind: type, sent: Any, stored: Any) -> str | None:
    try:
        same = _same(kind, sent, stored)
    except (ValueError, TypeError, ArithmeticError) as error:
        return f"stored {stored!r:.80}, though Python cannot read it: {error!r:.80}"
    return None if same else f"stored {stored!r:.80}, sent {sent!r:.80}"


def _same(kind: type, sent: Any, stored: Any) -> bool:
    if kind is float:
        return isinstance(sent, Decimal) and float(sent) == stored
    if kind is int:
        return isinstance(sent, Decimal) and sent == stored
    if kind is Decimal:
        return Decimal(sent) == stored
    if kind is datetime:
        return abs(_time(sent) - stored) <= timedelta(microseconds=1)
    if kind is date:
        return bool(date.fromisoformat(sent) == stored)
    if kind is UUID:
        return UUID(sent) == stored
    if kind is bytes:
        return base64.b64decode(sent) == stored
    if kind in (dict, list):
        return _same_json(sent, stored)
    return type(sent) is type(stored) and bool(sent == stored)


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text.upper())
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _same_json(sent: Any, stored: Any) -> bool:
    """Equal but for the precision of a float."""
    left = [(sent, stored)]
    while left:
        one, other = left.pop()
        if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
            left += [(one[name], other[name]) for name in one]
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            left += zip(one, other, strict=True)
        elif isinstance(one, Decimal):
            if isinstance(other, bool) or not (one == other or math.isclose(one, other, rel_tol=1e-15)):
                return False
        elif one != other or type(one) is not type(other):
            return False
    return True


def letter_problem(record: Fuzzed, ms: int, letter: dict[str, Any], limit: int) -> str | None:
    """What is wrong with a dead letter; None when nothing is."""
    if record.healthy:
        return f"a healthy record was refused: {letter['stage']}: {letter['reason']}"
    if record.value is None:
        return "a dead letter of a tombstone"
    headers: object = letter["headers"]
    if record.raw_headers is None:
        expected = [
            [name, None if value is None else base64.b64encode(value).decode()] for name, value in record.headers or ()
        ]
        if (headers or []) != expected:
            return "other headers"
    held = {
        "value": record.value[:limit],
        "value_bytes": len(record.value),
        "value_sha256": hashlib.sha256(record.value).digest(),
        "truncated": len(record.value) > limit,
        "key": record.key,
        "kafka_timestamp_ms": None if ms == _NONE_MS else ms,
    }
    different = [name for name, value in held.items() if letter[name] != value]
    return f"other {', '.join(different)}" if different else None

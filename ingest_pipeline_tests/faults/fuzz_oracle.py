"""Works out the expected row from the record's bytes, with Python's library and the timestamps of iso_times.py."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from ingest_pipeline.core.nesting import Shape
from ingest_pipeline.core.record import STAMP
from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.faults.fuzz_records import MAX_MS, Fuzzed
from ingest_pipeline_tests.iso_times import microseconds

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_MS = -62_135_596_800_000
_NONE_MS = -1
"""Kafka's value for a missing timestamp."""


def stamp(ms: int) -> datetime | None:
    """The expected value of the column `kafka_timestamp`."""
    return _EPOCH + timedelta(milliseconds=ms) if _MIN_MS <= ms <= MAX_MS and ms != _NONE_MS else None


def rows_problem(stream: Stream, record: Fuzzed, ms: int, rows: Sequence[Sequence[Any]]) -> str | None:
    """The problem of a record's rows, which begin with column kafka_timestamp, or None."""
    if record.value is None:
        return "a row of a tombstone"
    try:
        events = _events(stream, record.value)
    except (ValueError, RecursionError) as error:
        # Python calls its own limit of recursion sooner than the decoder does.
        return None if isinstance(error, RecursionError) else f"a row of what is no JSON: {error}"
    if len(events) != len(rows):
        return f"{len(rows)} rows of {len(events)} events"
    problems = (
        _row_problem(stream, record, ms, number, *pair) for number, pair in enumerate(zip(events, rows, strict=True))
    )
    return next(filter(None, problems), None)


def skip_problem(stream: Stream, record: Fuzzed) -> str | None:
    """The problem of a record without a row and without a dead letter, or None."""
    try:
        if record.value is None or _events(stream, record.value) == []:
            return None
    except (ValueError, RecursionError):
        pass
    return "neither a row nor a dead letter"


def _events(stream: Stream, value: bytes) -> list[Any]:
    """The events of a record. Raises ValueError and RecursionError."""
    # The decoder does not look for broken UTF-8 in what it skips: foreign names and their values.
    parsed = json.loads(value.decode(errors="replace"), parse_float=Decimal, parse_int=Decimal)
    if stream.many:
        return parsed if isinstance(parsed, list) else [parsed]
    if not stream.envelope:
        return [parsed]
    change = parsed["payload"] if isinstance(parsed, dict) and "payload" in parsed and "op" not in parsed else parsed
    if not isinstance(change, dict):
        return [] if change is None else [change]
    operation = change.get("op")
    return [change.get("after")] if operation in ("c", "r", "u") or not isinstance(operation, str) else []


def _row_problem(stream: Stream, record: Fuzzed, ms: int, ordinal: int, event: Any, row: Sequence[Any]) -> str | None:
    if row[0] != stamp(ms):
        return f"kafka_timestamp is {row[0]}, sent was {ms}"
    stored_as = dict(zip(stream.columns[STAMP:], row, strict=True))
    if stream.many and stored_as["kafka_ordinal"] != ordinal:
        return f"kafka_ordinal is {stored_as['kafka_ordinal']}"
    for item in stream.fields:
        sent, stored = _sent(event, item.path), stored_as[item.name]
        if sent is None:
            problem = None if stored is None and item.nullable else "there, though not sent"
        else:
            problem = _difference(item.python_type, sent, stored)
        if problem:
            return f"{item.name} ({item.python_type.__name__}): {problem}"
    return _parts_problem(stream, record, event, stored_as)


def _sent(event: Any, path: str) -> Any:
    for name in path.split("."):
        event = None if event is None else event.get(name)
    return event


def _parts_problem(stream: Stream, record: Fuzzed, event: Any, stored: dict[str, Any]) -> str | None:
    if stream.key_column and stored[stream.key_column] != record.key:
        return "another key"
    if (
        stream.headers_column
        and record.raw_headers is None
        and (stored[stream.headers_column] or []) != _headers(record)
    ):
        return "other headers"
    if stream.headers_column and _unreadable(record):
        return "a row, though its headers cannot be read"
    if stream.extra_column and not _same_json(_undeclared(stream.shape, event), stored[stream.extra_column]):
        return f"undeclared {stored[stream.extra_column]!r:.80}"
    return None


def _headers(record: Fuzzed) -> list[list[str | None]]:
    return [[name, None if value is None else base64.b64encode(value).decode()] for name, value in record.headers or ()]


def _undeclared(shape: Shape, event: Any) -> dict[str, Any] | None:
    inner = {nested.json_name: nested.shape for nested in shape.nested}
    undeclared = {
        name: _undeclared(inner[name], value) if name in inner and value is not None else value
        for name, value in event.items()
        if name in inner or name not in {member.json_name for member in shape.members}
    }
    return {name: value for name, value in undeclared.items() if name not in inner or value is not None} or None


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
        return bool((moment := microseconds(sent)) is not None and _EPOCH + timedelta(microseconds=moment) == stored)
    if kind is date:
        return bool(stored.isoformat() == sent)
    if kind is UUID:
        return UUID(sent) == stored
    if kind is bytes:
        return base64.b64decode(sent) == stored
    if kind in (dict, list):
        return _same_json(sent, stored)
    return type(sent) is type(stored) and bool(sent == stored)


def _same_json(sent: Any, stored: Any) -> bool:
    """Exact equality. Numbers are compared digit by digit, since both sides read numbers as Decimal."""
    left = [(sent, stored)]
    while left:
        this, other = left.pop()
        if isinstance(this, dict) and isinstance(other, dict) and this.keys() == other.keys():
            left += [(this[name], other[name]) for name in this]
        elif isinstance(this, list) and isinstance(other, list) and len(this) == len(other):
            left += zip(this, other, strict=True)
        elif isinstance(this, Decimal):
            if not isinstance(other, Decimal) or this != other:
                return False
        elif this != other or type(this) is not type(other):
            return False
    return True


def _unreadable(record: Fuzzed) -> bool:
    try:
        for name, _ in record.raw_headers or ():
            name.decode()
    except UnicodeDecodeError:
        return True
    return False


def needless_refusal(stream: Stream, record: Fuzzed, letter: dict[str, Any]) -> str | None:
    """The reason why a dead letter should have been a row: the tests' own reader accepts the timestamp."""
    place = re.search(r"at `\$(?:\[(\d+)\])?\.(.*)`$", letter["reason"])
    if letter["stage"] != "timestamp" or place is None or record.value is None:
        return None
    sent = _sent(_events(stream, record.value)[int(place[1] or 0)], place[2])
    return f"refused {sent!r:.80}, which is a timestamp" if microseconds(sent) is not None else None


def letter_problem(record: Fuzzed, ms: int, letter: dict[str, Any], limit: int) -> str | None:
    """The problem of a dead letter, or None."""
    if record.healthy and not (_unreadable(record) and letter["reason"].startswith("headers cannot be read")):
        return f"a healthy record was refused: {letter['stage']}: {letter['reason']}"
    if record.value is None:
        return "a dead letter of a tombstone"
    headers: object = letter["headers"]
    if record.raw_headers is None and (headers or []) != _headers(record):
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

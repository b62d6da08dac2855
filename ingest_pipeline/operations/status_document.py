"""The statuses as a JSON document, for `ingest status --json` and `/status`. docs/operations.md explains the fields."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from .judgement import StreamStatus


def document(statuses: Iterable[StreamStatus]) -> str:
    """An entry for every stream. Times are RFC 3339, in UTC."""
    return json.dumps([_entry(status) for status in statuses], indent=2, default=_time)


def _entry(status: StreamStatus) -> dict[str, Any]:
    return {
        "stream": status.stream,
        "level": status.level.label,
        "messages": status.messages,
        "paused": status.paused,
        "lag": status.lag,
        "late": status.late,
        "open_letters": status.open_letters,
        "ticked_at": status.ticked_at,
        "partitions": [{**asdict(row), "open_letters": row.open_letters} for row in status.partitions],
    }


def _time(value: object) -> str:
    assert isinstance(value, datetime)
    return value.astimezone(UTC).isoformat()

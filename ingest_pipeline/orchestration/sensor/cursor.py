"""A sensor's memory between two ticks, and times of other clocks converted to the sensor's own clock."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...core.ledger import StreamState
from ...core.record import StoredPosition
from ..view import Decision, StatusSince, View

CLOCK_SECONDS = 5.0
"""Largest difference between two machines' clocks. A time further ahead lies in the future."""


def load(cursor: str | None) -> dict[str, Any]:
    return json.loads(cursor) if cursor else {}


def last_statuses(memory: Mapping[str, Any]) -> dict[str, StatusSince]:
    return {run_id: StatusSince(*values) for run_id, values in memory.get("runs", {}).items()}


def runs_memory(cursor: str | None, view: View, decision: Decision) -> dict[str, Any]:
    """The next cursor's entries about runs. A tick without runs from Dagster keeps the old entries."""
    if not view.runs_read:
        return {name: value for name, value in load(cursor).items() if name in ("runs", "looked_at")}
    runs = {run_id: (last.status, last.since) for run_id, last in decision.last_statuses.items()}
    return {"runs": runs, "looked_at": view.now}


def progress_times(positions: Mapping[int, StoredPosition], state: StreamState, now: float) -> dict[int, float]:
    """Partition → when its position last moved, by this process's clock. Partitions without progress are absent."""
    return {
        partition: to_own_clock(position.updated_at, state, now)
        for partition, position in positions.items()
        if position.next_offset > position.first_offset
    }


def to_own_clock(moment: datetime | None, state: StreamState, now: float) -> float:
    """A time of PostgreSQL's clock in Unix seconds of this process's clock, `now`.

    0.0, long ago, for None, and for a time in PostgreSQL's future: PostgreSQL's clock was set back since.
    """
    if moment is None:
        return 0.0
    age = (state.now.timestamp() if state.now is not None else now) - moment.timestamp()
    return 0.0 if age < -CLOCK_SECONDS else now - max(age, 0.0)

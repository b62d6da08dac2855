"""What a sensor remembers between two ticks, and other clocks' moments by the sensor's own clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...core.ledger import StreamState
from ...core.record import StoredPosition
from ..view import Decision, Sight, View

CLOCK_SECONDS = 5.0
"""How far two machines' clocks may be apart before a moment counts as one of the future."""


def stored(cursor: str | None) -> dict[str, Any]:
    return json.loads(cursor) if cursor else {}


def sights(kept: Mapping[str, Any]) -> dict[str, Sight]:
    """What `runs_seen` kept."""
    return {run_id: Sight(*seen) for run_id, seen in kept.get("runs", {}).items()}


def runs_seen(cursor: str | None, view: View, decision: Decision) -> dict[str, Any]:
    """What the next cursor keeps of the runs. A look that did not ask Dagster keeps what the look before it kept."""
    if not view.runs_asked:
        return {name: kept for name, kept in stored(cursor).items() if name in ("runs", "looked_at")}
    runs = {run_id: (seen.status, seen.since) for run_id, seen in decision.sights.items()}
    return {"runs": runs, "looked_at": view.now}


def moved_at(known: Mapping[int, StoredPosition], state: StreamState, now: float) -> dict[int, float]:
    """Partition → when its position moved last, by this process's clock; without those that never did."""
    moved = {p: at.updated_at for p, at in known.items() if at.next_offset > at.first_offset}
    return {p: by_this_clock(moment, state, now) for p, moment in moved.items()}


def by_this_clock(moment: datetime | None, state: StreamState, now: float) -> float:
    """A moment of PostgreSQL's clock in Unix seconds of this process's clock, `now`.

    It is 0.0, long ago, where there is none, and where it lies in PostgreSQL's future: that clock was set back since.
    """
    if moment is None:
        return 0.0
    age = (state.now.timestamp() if state.now is not None else now) - moment.timestamp()
    return 0.0 if age < -CLOCK_SECONDS else now - max(age, 0.0)

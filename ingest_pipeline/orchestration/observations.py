"""Observations of a topic's asset, reported by its stream's sensor without a run.

Dagster never prunes such events: there is one in OBSERVE_SECONDS at most, and none while nothing has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from ..core.ports import Topic
from .decide import View

OBSERVE_SECONDS = 300.0
_COLUMNS = ("partition", "position", "end", "lag", "headroom", "blocked")

Observed = Sequence[float]
"""When the last look was, and what it saw moving: the sums of positions, of ends, and of what is blocked."""


def observe(key: dg.AssetKey, topic: Topic, view: View, before: Observed) -> tuple[list[dg.AssetObservation], Observed]:
    """What to report now, at most one, and what to remember. Asks Kafka only when a look is due.

    Raises:
        IngestError: Kafka did not answer.
    """
    if before and view.now - before[0] < OBSERVE_SECONDS:
        return [], before
    lows = {p: place.next_offset for p, place in topic.start_offsets(list(view.ends)).items()}
    highs = topic.high_watermarks(list(view.ends))
    blocked = {p: max(0, highs[p] - end) for p, end in view.ends.items()}
    seen = [view.now, sum(view.positions.values()), sum(view.ends.values()), sum(blocked.values())]
    if list(before[1:]) == seen[1:]:
        return [], seen
    return [dg.AssetObservation(key, metadata=_metadata(view, lows, blocked))], seen


def _metadata(view: View, lows: Mapping[int, int], blocked: Mapping[int, int]) -> dict[str, Any]:
    """`headroom`: records that retention may still remove before it reaches one that is not read. `blocked`: records
    that an open transaction holds back from readers."""
    headroom = {p: position - lows[p] for p, position in view.positions.items() if p in lows}
    found: dict[str, Any] = {"lag": sum(view.lag.values()), "blocked_by_transaction": sum(blocked.values())}
    if headroom:
        found["headroom"] = min(headroom.values())
    records = [
        dg.TableRecord(
            {
                name: value
                for name, value in zip(
                    _COLUMNS,
                    (p, view.positions.get(p), end, view.lag[p], headroom.get(p), blocked[p]),
                    strict=True,
                )
                if value is not None
            }
        )
        for p, end in sorted(view.ends.items())
    ]
    schema = dg.TableSchema(columns=[dg.TableColumn(name, "int") for name in _COLUMNS])
    return {**found, "offsets": dg.MetadataValue.table(records=records, schema=schema)}

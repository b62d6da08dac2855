"""A run's throughput and latency over time as a picture that Dagster shows in a Markdown value."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import dagster as dg

from ..core.history import History

_WIDE, _HIGH, _GAP = 480, 56, 22


def picture(history: History) -> dg.MarkdownMetadataValue | None:
    """Two sparklines, one above the other; None before there are two stretches to draw a line between.

    The UI shows no SVG element in Markdown, but an image with a data URI (seen in Dagster 1.13's webserver).
    """
    if len(history.stretches) < 2:
        return None
    rates = [one.rows / history.seconds for one in history.stretches]
    delays = [one.latency_ms for one in history.stretches]
    seconds = len(history.stretches) * history.seconds
    drawn = [
        *_line(0, f"rows a second, at most {max(rates):,.0f}; {seconds:,.0f} s", rates, "#4f6bed"),
        *_line(_HIGH + _GAP, f"longest latency, ms, at most {max(delays):,.0f}", delays, "#d1690e"),
    ]
    size = f'width="{_WIDE}" height="{2 * (_HIGH + _GAP)}"'
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">{"".join(drawn)}</svg>'
    )
    encoded = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![throughput and latency](data:image/svg+xml;base64,{encoded})")


def _line(top: int, title: str, values: Sequence[float], colour: str) -> list[str]:
    largest = max(values) or 1.0
    step = _WIDE / (len(values) - 1)
    base = top + _GAP + _HIGH
    points = " ".join(f"{i * step:.1f},{base - value / largest * _HIGH:.1f}" for i, value in enumerate(values))
    return [
        f'<text x="0" y="{top + 15}" fill="#777">{title}</text>',
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
    ]

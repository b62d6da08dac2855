"""Draws a run's throughput and latency over time as a picture for a Markdown value."""

from collections.abc import Sequence
from urllib.parse import quote

import dagster as dg

from ...core.progress import History

INLINE = 1000
"""The UI shows a shorter Markdown value in place, and a longer one behind a link (Dagster 1.13)."""
_WIDE, _HIGH, _GAP = 260, 56, 22  # the metadata column of a window 1,280 wide has 260


def picture(history: History) -> dg.MarkdownMetadataValue | None:
    """Two sparklines, one above the other. None with fewer than two intervals.

    The UI shows no SVG element in Markdown, but it shows an image with a data URI (tested in ingest_pipeline_tests/ui).
    The URI is percent-encoded, because base64 is a third longer, and the whole value must have fewer than INLINE
    characters.
    """
    if len(history.stretches) < 2:
        return None
    rates = [one.rows / history.seconds for one in history.stretches]
    delays = [one.latency_ms for one in history.stretches]
    seconds = len(history.stretches) * history.seconds
    rate = f"rows/s over {seconds:,.0f} s, at most {max(rates):,.0f}"
    delay = f"longest latency in ms, at most {max(delays):,.0f}"
    drawn = _line(0, rate, rates, "#46e") + _line(_HIGH + _GAP, delay, delays, "#d60")
    size_and_font = f"width='{_WIDE}' height='{2 * (_HIGH + _GAP)}' font-family='sans-serif' font-size='12'"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' {size_and_font} fill='none'>{drawn}</svg>"
    encoded = quote(svg, safe="/:=,;'+")
    return dg.MetadataValue.md(f"![throughput and latency](data:image/svg+xml,{encoded})")


def _line(top: int, title: str, values: Sequence[float], colour: str) -> str:
    """A title and a path with integer, relative coordinates, which need the fewest characters."""
    largest = max(values) or 1.0
    base = top + _GAP + _HIGH - 1  # half the stroke's width would be cut off below
    across = [round(i * _WIDE / (len(values) - 1)) for i in range(len(values))]
    up = [round(value / largest * (_HIGH - 2)) for value in values]
    steps = [f"{across[i] - across[i - 1]}{up[i - 1] - up[i]:+d}" for i in range(1, len(values))]
    path = f"M0,{base - up[0]}l{','.join(steps)}"
    return f"<text y='{top + 15}' fill='#777'>{title}</text><path d='{path}' stroke='{colour}'/>"

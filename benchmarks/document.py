"""docs/benchmarks.md: a section for each measurement, replaced when it is measured again."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PACKAGES = ("dagster", "confluent-kafka", "SQLAlchemy", "psycopg", "msgspec")
_HEAD = """\
# Benchmarks

`make bench` writes this page. Each section names its date and machine. Kafka, PostgreSQL, Dagster and the runs share
the machine, so only ratios within one section can be compared with other machines.
"""


def write(title: str, servers: str, body: str, order: Sequence[str]) -> None:
    """Replace one section. The others stay."""
    sections = _read()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    where = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    measured = f"*{date.today():%Y-%m-%d}, {where}; {servers}; {packages}.*"
    sections[title] = f"{measured}\n\n{body.strip()}\n"
    kept = [name for name in order if name in sections]
    DOCUMENT.write_text("\n".join([_HEAD, *(f"## {name}\n\n{sections[name]}" for name in kept)]))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bars(plots: Mapping[str, Mapping[str, float]]) -> str:
    """An SVG with a bar for each value, under a heading for each plot, all to one scale."""
    wide, high, left = 640, 22, 100
    largest = max(max(values.values()) for values in plots.values())
    parts, y = [], 0
    for title, values in plots.items():
        parts.append(f'<text x="0" y="{y + 18}" font-weight="bold">{title}</text>')
        for name, value in values.items():
            y += high
            width = (wide - left - 90) * value / largest
            parts += [
                f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{name}</text>',
                f'<rect x="{left}" y="{y + 3}" width="{width:.0f}" height="{high - 6}" fill="#4f6bed"/>',
                f'<text x="{left + width + 6:.0f}" y="{y + 16}">{value:,.0f}</text>',
            ]
        y += high + 8
    size = f'width="{wide}" height="{y}" font-family="sans-serif" font-size="13"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', *parts, "</svg>", ""])


def _read() -> dict[str, str]:
    if not DOCUMENT.exists():
        return {}
    pieces = DOCUMENT.read_text().split("\n## ")[1:]
    return {title: body.lstrip("\n") for title, _, body in (piece.partition("\n") for piece in pieces)}

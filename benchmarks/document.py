"""docs/benchmarks.md and docs/scaling.md: a section for each measurement, replaced when it is measured again."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
SCALING = DOCUMENT.with_name("scaling.md")
PACKAGES = ("dagster", "confluent-kafka", "SQLAlchemy", "psycopg", "msgspec")


def write(title: str, servers: str, body: str, order: Sequence[str], page: Path = DOCUMENT) -> None:
    """Replace one section of the page. The others stay. Those of docs/benchmarks.md come in `order`."""
    head, *pieces = page.read_text().split("\n## ")
    sections = {name: text.lstrip("\n") for name, _, text in (piece.partition("\n") for piece in pieces)}
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    where = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    measured = f"*{date.today():%Y-%m-%d}, {where}; {servers}; {packages}.*"
    sections[title] = f"{measured}\n\n{body.strip()}\n"
    names = list(sections)
    if page == DOCUMENT:
        names.sort(key=order.index)
    page.write_text("\n".join([head, *(f"## {name}\n\n{sections[name]}" for name in names)]))


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

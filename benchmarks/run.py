"""`make bench`: measure, print, and write docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import click

from .drain import Drained, Survived, drain, survive

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PACKAGES = ("dagster", "confluent-kafka", "SQLAlchemy", "psycopg", "msgspec")


@click.command(context_settings={"show_default": True})
@click.option("--records", default=1_000_000, help="Records of a backlog, over both topics.")
@click.option("--repeats", default=3, help="Backlogs drained, each on new servers.")
@click.option("--kills", default=20, help="Runs killed by kill -9.")
@click.option("--kill-records", default=400_000, help="Records drained while runs are killed.")
@click.option("--seed", default=1, help="Of the kills' moments.")
@click.option("--write/--no-write", default=True, help=f"Write {DOCUMENT.name}.")
def main(records: int, repeats: int, kills: int, kill_records: int, seed: int, write: bool) -> None:
    """Drain backlogs through sensor-launched Dagster runs, default settings, and kill some of the runs."""
    drained: list[Drained] = []
    versions = ""
    for number in range(repeats):
        result, versions = drain(records, {})
        drained.append(result)
        click.echo(f"drain {number + 1}: {result.steady:,.0f} rows/s steady, {result.whole:,.0f} rows/s from the first")
    survived = survive(kill_records, kills, seed, {}) if kills else None
    if survived is not None:
        click.echo(_of_kills(survived))
        if survived.lost or survived.twice or survived.dead_letters != survived.broken:
            raise SystemExit("records were lost or doubled")
    if write:
        DOCUMENT.write_text(document(drained, survived, versions))
        click.echo(f"wrote {DOCUMENT.name}")


def document(drained: Sequence[Drained], survived: Survived | None, versions: str) -> str:
    """docs/benchmarks.md."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` on {date.today():%Y-%m-%d}: {_machine()}, Python {platform.python_version()};",
        f"{versions}; {packages}. Kafka, PostgreSQL, Dagster and the runs share the machine.",
        "",
        "## A backlog, drained by sensor-launched runs",
        "",
        f"{drained[0].records:,} records over two topics of 4 partitions, one in 1,000 broken; default settings (batch",
        "1,000, exactly once, primary key on the Kafka coordinates). Rows of both streams together, a second;",
        "steady is between 10 % and 90 % of the records.",
        "",
        "| | min | median | max |",
        "|---|---|---|---|",
        _row("steady", [result.steady for result in drained]),
        _row("from the first committed record", [result.whole for result in drained]),
        "",
    ]
    if survived is not None:
        lines += ["## kill -9", "", _of_kills(survived), ""]
    return "\n".join(lines)


def _of_kills(survived: Survived) -> str:
    return (
        f"{survived.kills} runs killed by `kill -9` while draining {survived.records:,} records, {survived.broken:,} of"
        f" them broken:\n{survived.distinct:,} rows, {survived.dead_letters:,} dead letters, {survived.lost:,} lost,"
        f" {survived.twice:,} twice."
    )


def _row(name: str, values: Sequence[float]) -> str:
    return f"| {name} | {min(values):,.0f} | {statistics.median(values):,.0f} | {max(values):,.0f} |"


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"


if __name__ == "__main__":
    main()

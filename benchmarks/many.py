"""A hundred streams in one job, and a thousand in four: first rows, latency, CPU, memory and sessions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import click

from . import document, many_growth, many_trouble
from .effort import Effort
from .idle import SETTLE_SECONDS, Cost, make_topics, measured_cost
from .many_load import draining, latencies, now
from .rates import quantile
from .system import System


@dataclass(frozen=True)
class Load:
    """Figures of one load.

    Attributes:
        first_rows: seconds from the start of `dagster dev` until every stream has stored a row.
        latencies: seconds.
    """

    first_rows: float
    cost: Cost
    latencies: list[float]


def section(running: System, effort: Effort) -> str:
    seconds = 120.0 * effort.scale
    hundred, thousand = effort.of(100), effort.of(1000)
    make_topics(running, thousand, partitions=1)
    return "\n\n".join(
        [
            _loads(running, ((hundred, 1, 1.0), (hundred, 1, 0.0), (thousand, 4, 0.1)), seconds),
            many_growth.section(running, hundred, round(300 * effort.scale)),
            many_trouble.section(running, hundred, seconds / 2),
        ]
    )


def _loads(running: System, loads: Sequence[tuple[int, int, float]], seconds: float) -> str:
    rows = []
    for streams, jobs, per_second in loads:
        load = measure(running, streams, jobs, per_second, seconds)
        name = f"{streams} streams, {jobs} job{'s' if jobs > 1 else ''}, {per_second:g} records/s each"
        p50, p99 = (quantile(load.latencies, share) if load.latencies else None for share in (0.5, 0.99))
        cost = load.cost
        figures = (load.first_rows, cost.cores, cost.largest_mib, cost.mib, cost.sessions)
        cells = [f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in figures]
        cells += ["-" if value is None else f"{value:.2f}" for value in (p50, p99)]
        click.echo(f"  {name}: {', '.join(cells)}")
        rows.append((name, *cells))
    head = ["load", "seconds to all first rows", "cores", "largest process, MiB", "all processes, MiB"]
    head += ["PostgreSQL sessions", "latency p50", "latency p99"]
    return (
        "Streams of one partition, drained by sensor-launched runs at default settings. The seconds count from the\n"
        "start of `dagster dev`. Cores, memory and sessions are those of `dagster dev` and its runs, over\n"
        f"{seconds:.0f} s. Without records they are measured after the last run has ended. The latency is the time\n"
        "from a record's Kafka timestamp to its transaction.\n\n"
    ) + document.table(head, rows)


def measure(running: System, streams: int, jobs: int, per_second: float, seconds: float) -> Load:
    """Send records to all streams in turn, and measure for `seconds` after every stream has stored a row."""
    with draining(running, streams, jobs, per_second) as (dagster, _, first_rows):
        time.sleep(SETTLE_SECONDS)
        began_at = now(running)
        cost = measured_cost(running, dagster, seconds)
        return Load(first_rows, cost, list(latencies(running, range(streams), began_at)) if per_second else [])

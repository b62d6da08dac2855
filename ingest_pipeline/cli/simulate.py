"""`ingest simulate`: progress while sending, and a summary at the end."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..demo.simulate import Plan, Tally, ensure_topics, simulate
from ..local.child_process import StopSignals
from ..settings import load_settings
from .progress import progress


def run_simulate(
    bootstrap_servers: str | None, topics: Sequence[str], plan: Mapping[str, Any], create_partitions: int | None
) -> int:
    """Send until the plan is done or a signal comes. The exit code is 1 when the broker did not take every record.

    Raises:
        IngestError: about settings, topics or the broker.
    """
    chosen = Plan(topics=topics, **plan)
    kafka = dict(load_settings([]).kafka)
    if bootstrap_servers is not None:
        kafka["bootstrap.servers"] = bootstrap_servers
    if created := ensure_topics(kafka, chosen.topics, create_partitions):
        print(f"created {', '.join(created)} with {create_partitions} partitions each")
    with StopSignals() as stop, _shown(chosen) as report:
        tally = simulate(kafka, chosen, lambda: stop.count > 0, report)
    print(_summary(tally))
    for topic, count in tally.topics.items():
        print(f"  {topic}: {count.acknowledged:,} acknowledged, {count.broken:,} of them broken on purpose")
    if tally.failed or tally.unsettled:
        print(f"{tally.failed:,} refused, {tally.unsettled:,} without an answer", file=sys.stderr)
    return 1 if tally.failed or tally.unsettled else 0


def _summary(tally: Tally) -> str:
    rate = tally.acknowledged / tally.seconds if tally.seconds else 0.0
    return f"{tally.acknowledged:,} records in {tally.seconds:.1f} s, {rate:,.0f}/s, {tally.broken:,} broken"


@contextmanager
def _shown(plan: Plan) -> Iterator[Callable[[Tally], None]]:
    """Yields the function to show a tally."""
    with progress("sent", plan.total) as show:

        def report(tally: Tally) -> None:
            by_time = None if plan.total is not None or plan.seconds is None else tally.seconds / plan.seconds
            show(tally.acknowledged, by_time, f", {tally.broken:,} broken")

        yield report

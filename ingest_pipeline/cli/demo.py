"""`ingest demo` and `ingest simulate`."""

import sys
from typing import Any

import click

_MOST_EVENTS = 5000.0


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=3000,
    show_default=True,
    help="Port of the UI. 0 for any free port.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.1, _MOST_EVENTS),
    default=200,
    show_default=True,
    help="Events per second over all topics. The embedded broker keeps 5 MB per partition.",
)
@click.option("--seconds", type=click.FloatRange(1), help="End this many seconds after Dagster's start.")
@click.option("--headless", is_flag=True, help="End with a verdict after --seconds (default 45).")
@click.option(
    "--kill-every", type=click.FloatRange(1), help="Kill a draining run with SIGKILL at this interval in seconds."
)
def demo(port: int, rate: float, seconds: float | None, headless: bool, kill_every: float | None) -> None:
    """Run a broker, PostgreSQL, simulated devices and Dagster on the local machine until Ctrl-C.

    The demo keeps its files in .demo of the current directory, and empties the folder at the start.

    With --kill-every the demo counts every record at its end. The exit code is 1 if a record was lost.

    Example: ingest demo --rate 1000
    """
    from ..demo.demo import DemoOptions, run_demo

    if headless and seconds is None:
        seconds = 45.0
    sys.exit(run_demo(DemoOptions(port=port, rate=rate, seconds=seconds, headless=headless, kill_every=kill_every)))


@click.command()
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=200,
    show_default=True,
    help="Events per second. 0 for as many as possible.",
)
@click.option("--seconds", type=click.FloatRange(0.1), help="End after this many seconds.")
@click.option("--records", type=click.IntRange(1), help="End after this many records.")
@click.option(
    "--topics",
    default="temperature,price",
    show_default=True,
    help="Topics, separated by commas. Events for other streams of streams.py are generated from their declaration.",
)
@click.option("--devices", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many devices.")
@click.option(
    "--symbols", type=click.IntRange(1, 17_576), default=20, show_default=True, help="How many symbols have a price."
)
@click.option(
    "--broken-every",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Break one event in this many. 0 for none.",
)
@click.option(
    "--tombstone-every",
    type=click.IntRange(0, 100_000),
    default=0,
    show_default=True,
    help="Leave out the value of one record in this many. 0 for none.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same events.")
@click.option("--bootstrap-servers", help="Default: KAFKA_BOOTSTRAP_SERVERS.")
@click.option("--create-topics", is_flag=True, help="Create the topics that do not exist.")
@click.option(
    "--partitions", type=click.IntRange(1), default=4, show_default=True, help="Partitions of a created topic."
)
def simulate(topics: str, bootstrap_servers: str | None, create_topics: bool, partitions: int, **plan: Any) -> None:
    """Send simulated events to a broker at a rate, until Ctrl-C or the end.

    The KAFKA_* settings are shared with the pipeline.

    Example: ingest simulate --rate 1000 --seconds 60 --create-topics
    """
    from .simulate import run_simulate

    names = tuple(name.strip() for name in topics.split(",") if name.strip())
    sys.exit(run_simulate(bootstrap_servers, names, plan, partitions if create_topics else None))

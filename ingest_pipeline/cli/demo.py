"""`ingest demo` and `ingest simulate`."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click

from ..local.server_process import LocalServerError

Args = ParamSpec("Args")
Result = TypeVar("Result")

_MOST_EVENTS = 5000.0


def _one_line(command: Callable[Args, Result]) -> Callable[Args, Result]:
    """A server of this machine that fails is one line, like every error of ours."""

    @wraps(command)
    def run(*args: Args.args, **kwargs: Args.kwargs) -> Result:
        try:
            return command(*args, **kwargs)
        except LocalServerError as error:
            if click.get_current_context().find_root().params.get("traceback"):
                raise
            raise click.ClickException(str(error)) from None

    return run


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=3000, show_default=True, help="Of the UI; 0 is any.")
@click.option(
    "--rate",
    type=click.FloatRange(0.1, _MOST_EVENTS),
    default=200,
    show_default=True,
    help="Events a second over all topics; the embedded broker keeps 5 MB a partition.",
)
@click.option("--seconds", type=click.FloatRange(1), help="End this long after Dagster's start-up.")
@click.option("--headless", is_flag=True, help="End with a verdict after --seconds (then 45 if not given).")
@click.option("--kill-every", type=click.FloatRange(1), help="SIGKILL a draining run every so many seconds.")
@_one_line
def demo(port: int, rate: float, seconds: float | None, headless: bool, kill_every: float | None) -> None:
    """Broker, PostgreSQL, simulated devices and Dagster on this machine; Ctrl-C ends it.

    Everything is kept in .demo of the current directory, which is emptied at the start.

    With --kill-every it ends with the proof that nothing was lost, and exit code 1 when something was.

    Example: ingest demo --rate 1000
    """
    from ..demo.demo import DemoOptions, run_demo

    if headless and seconds is None:
        seconds = 45.0
    sys.exit(run_demo(DemoOptions(port, rate, seconds, headless, kill_every)))


@click.command()
@click.option(
    "--rate", type=click.FloatRange(0), default=200, show_default=True, help="Events a second; 0 is all it takes."
)
@click.option("--seconds", type=click.FloatRange(0.1), help="End after this long.")
@click.option("--records", type=click.IntRange(1), help="End after this many.")
@click.option(
    "--topics",
    default="temperature,price",
    show_default=True,
    help="Separated by commas. For those of other streams in streams.py events are made up.",
)
@click.option("--devices", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--symbols", type=click.IntRange(1, 17_576), default=20, show_default=True)
@click.option(
    "--broken-every",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="One event in so many is broken; 0 is none.",
)
@click.option(
    "--tombstone-every",
    type=click.IntRange(0, 100_000),
    default=0,
    show_default=True,
    help="One record in so many has no value.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--bootstrap-servers", help="Default: KAFKA_BOOTSTRAP_SERVERS.")
@click.option("--create-topics", is_flag=True, help="Create topics that do not exist.")
@click.option("--partitions", type=click.IntRange(1), default=4, show_default=True, help="Of a topic it creates.")
@_one_line
def simulate(topics: str, bootstrap_servers: str | None, create_topics: bool, partitions: int, **plan: Any) -> None:
    """Send simulated events to a broker, at a rate, until Ctrl-C or the end.

    KAFKA_* settings are honoured, as by the pipeline itself.

    Example: ingest simulate --rate 1000 --seconds 60 --create-topics
    """
    from .simulate import run_simulate

    names = tuple(name.strip() for name in topics.split(",") if name.strip())
    sys.exit(run_simulate(bootstrap_servers, names, plan, partitions if create_topics else None))

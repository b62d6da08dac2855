"""Memory of a run: with a backlog, with large records, and while PostgreSQL does not answer."""

import time
from collections.abc import Callable
from functools import partial

import click
import dagster as dg

from ingest_pipeline.cli.progress import progress
from ingest_pipeline_tests.orchestration import killed_run
from ingest_pipeline_tests.servers.proxy import TcpProxy

from . import document
from .effort import Effort
from .kills import accounted
from .processes import rss_mib
from .shapes import Shape, drain, produce, stream_of
from .system import TOPICS, System
from .throughput import OURS, measure, own_names, through

_LOOK_SECONDS = 0.05
_GIVE_UP_SECONDS = 120.0


def section(running: System, effort: Effort) -> str:
    records = running.produce(effort.of(10_000_000), broken_every=0).acknowledged
    (backlog,) = measure(running, records, [OURS]).values()
    before, during = memory_in_outage(running, records // 20, 40.0 * effort.scale)
    click.echo(f"  PostgreSQL does not answer: {before:.0f} MiB before, {during:.0f} MiB during the outage")
    large, count = Shape(size=1_000_000), effort.of(1000)
    produce(running, large, count)
    run = drain(running, partial(stream_of, large), count, {})
    click.echo(f"  1 MB records: {run.rate:,.0f} rows/s, {run.rss_mib:.0f} MiB")
    return "Most resident MiB of a run's process, default settings.\n\n" + document.table(
        ["backlog", "MiB", "rows/s"],
        [
            (f"{records:,} records of about 90 bytes", f"{backlog.rss_mib:.0f}", f"{backlog.steady:,.0f}"),
            (f"the same, while PostgreSQL does not answer ({before:.0f} before)", f"{during:.0f}", "0"),
            (f"{count:,} records of 1,000,000 bytes", f"{run.rss_mib:.0f}", f"{run.rate:,.0f}"),
        ],
    )


def memory_in_outage(running: System, warm_up: int, seconds: float) -> tuple[float, float]:
    """A run drains `warm_up` records, then PostgreSQL does not answer for `seconds`, then the run drains again.

    Returns:
        The run's most resident MiB, before the outage and during it.
    """
    folder, topic = running.fresh_folder("outage"), TOPICS[0]
    dg.DagsterInstance.local_temp(str(folder)).dispose()
    with TcpProxy(running.database_port) as proxy:
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": running.bootstrap_servers,
            "DATABASE_URL": through(proxy, running.database_url),
            **own_names("outage"),
        }
        process = killed_run.start({topic: topic}, settings, folder)
        try:
            before = _most(process.pid, lambda: accounted(running, "outage_ledger") >= warm_up)
            proxy.black_hole()
            since = time.monotonic()
            with progress("seconds of the outage", round(seconds)) as show:

                def is_over() -> bool:
                    show(round(passed := time.monotonic() - since))
                    return passed >= seconds

                during = _most(process.pid, is_over)
            stopped_at = accounted(running, "outage_ledger")
            proxy.let_pass()
            _most(process.pid, lambda: accounted(running, "outage_ledger") > stopped_at)
        finally:
            process.kill()
            process.join()
    return before, during


def _most(pid: int | None, until: Callable[[], bool]) -> float:
    most, deadline = 0.0, time.monotonic() + _GIVE_UP_SECONDS
    while not until():
        if time.monotonic() > deadline:
            raise SystemExit("the run does not drain")
        most = max(most, rss_mib(pid or 0))
        time.sleep(_LOOK_SECONDS)
    return most

"""What a run holds in memory while PostgreSQL does not answer and a backlog waits."""

from __future__ import annotations

import time
from collections.abc import Callable

import dagster as dg

from ingest_pipeline.cli.progress import progress
from ingest_pipeline_tests.faults.proxy import TcpProxy
from ingest_pipeline_tests.orchestration import killed_run

from .kills import accounted
from .processes import rss_mib
from .system import TOPICS, System
from .throughput import own_names, through

_LOOK_SECONDS = 0.05
_GIVE_UP_SECONDS = 120.0


def stuck(running: System, warm_up: int, seconds: float) -> tuple[float, float]:
    """A run drains `warm_up` records, then nothing passes between it and PostgreSQL for so long, then it goes on.

    Returns:
        Its most resident MiB, before and meanwhile.
    """
    folder, topic = running.fresh_folder("stuck"), TOPICS[0]
    dg.DagsterInstance.local_temp(str(folder)).dispose()
    with TcpProxy(running.database_port) as proxy:
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": running.bootstrap_servers,
            "DATABASE_URL": through(proxy, running.database_url),
            **own_names("stuck"),
        }
        process = killed_run.start(topic, topic, settings, folder)
        try:
            before = _most(process.pid, lambda: accounted(running, "stuck_ledger") >= warm_up)
            proxy.black_hole()
            since = time.monotonic()
            with progress("seconds stuck", round(seconds)) as show:

                def over() -> bool:
                    show(round(passed := time.monotonic() - since))
                    return passed >= seconds

                meanwhile = _most(process.pid, over)
            stopped_at = accounted(running, "stuck_ledger")
            proxy.let_pass()
            _most(process.pid, lambda: accounted(running, "stuck_ledger") > stopped_at)
        finally:
            process.kill()
            process.join()
    return before, meanwhile


def _most(pid: int | None, until: Callable[[], bool]) -> float:
    most, deadline = 0.0, time.monotonic() + _GIVE_UP_SECONDS
    while not until():
        if time.monotonic() > deadline:
            raise SystemExit("the run does not drain")
        most = max(most, rss_mib(pid or 0))
        time.sleep(_LOOK_SECONDS)
    return most

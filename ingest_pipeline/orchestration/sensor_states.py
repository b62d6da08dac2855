"""Why sensors do not look, by Dagster's storage. Asked only while a stream suffers: Dagster's import is slow."""

import os
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorStatus

from .storage_errors import storage_errors
from .tags import sensor_name

ANSWER_SECONDS = 3.0
"""How long a status waits for Dagster's storage."""
HEARTBEAT_SECONDS = 60.0
"""The daemon gives a sign of life every 30 s."""
_DAEMON = "SENSOR"


def reasons(instance: dg.DagsterInstance, jobs: Collection[str]) -> dict[str, str]:
    """Job → why its sensor does not look. Jobs without a reason are left out."""
    switched_off = {
        state.instigator_name
        for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        if state.status == InstigatorStatus.STOPPED
    }
    heartbeat = instance.get_daemon_heartbeats().get(_DAEMON)
    silent_seconds = 0.0 if heartbeat is None else time.time() - heartbeat.timestamp
    words = {}
    for job in jobs:
        if sensor_name(job) in switched_off:
            words[job] = "the sensor is switched off in Dagster"
        elif silent_seconds > HEARTBEAT_SECONDS:
            words[job] = f"Dagster's daemon is down, and gave its last sign of life {silent_seconds:,.0f} s ago"
    return words


def reasons_of_folder(jobs: Collection[str]) -> dict[str, str]:
    """The reasons by the instance of DAGSTER_HOME, or of the current folder. Empty where it cannot be read in time."""
    folder = os.environ.get("DAGSTER_HOME") or str(Path.cwd())
    if not (Path(folder) / "dagster.yaml").is_file():
        return {}
    found: dict[str, str] = {}
    # Dagster tries for ten seconds and more to connect to a storage that is down.
    thread = threading.Thread(target=_read_reasons, args=(folder, jobs, found), daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return dict(found)


def _read_reasons(folder: str, jobs: Collection[str], found: dict[str, str]) -> None:
    unusable: tuple[type[Exception], ...] = (dg.DagsterError, ImportError, *storage_errors())
    with suppress(*unusable), dg.DagsterInstance.from_config(folder) as instance:
        found |= reasons(instance, jobs)

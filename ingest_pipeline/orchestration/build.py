"""Streams → Dagster definitions, for our own code location or somebody else's project."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import dagster as dg

from ..core.stream import Stream, by_name
from ..operations.clients import Clients
from ..settings import Settings, load_settings
from . import tags
from .asset_keys import asset_key
from .assets import stream_asset, topic_spec
from .checks import stream_checks
from .jobs.maintenance import maintenance_job, maintenance_schedule
from .jobs.pause import pause_job, resume_job
from .jobs.recovery import redrive_job, replay_job
from .sensor.alerts import alert_sensors
from .sensor.sensor import stream_sensor


def build_definitions(
    streams: Iterable[Stream],
    settings: Settings | None = None,
    key_prefix: Sequence[str] = (),
    group: str = "ingest",
) -> dg.Definitions:
    """Assets, sensors, jobs and the maintenance schedule of these streams.

    No executor and no resource is among them, so `Definitions.merge` with another project's works.

    Args:
        settings: default: from the environment, read now.
        key_prefix: in front of every asset key.

    Raises:
        SettingsError: the settings or the streams cannot be used.
    """
    named = by_name(streams)
    clients = Clients(settings if settings is not None else load_settings(list(named)))
    everything = list(named.values())
    sensors = [
        *(stream_sensor(stream, clients, key_prefix) for stream in everything),
        *alert_sensors(everything, clients.settings.webhook, key_prefix),
    ]
    return dg.Definitions(
        assets=[
            *(topic_spec(stream, key_prefix, group) for stream in everything),
            *(stream_asset(stream, clients, key_prefix, group) for stream in everything),
        ],
        asset_checks=[stream_checks(stream, clients, key_prefix) for stream in everything],
        jobs=[
            *(_drain_job(stream, key_prefix) for stream in everything),
            maintenance_job(
                clients,
                everything,
                {sensor.name for sensor in sensors},
                [asset_key(stream, key_prefix) for stream in everything],
            ),
            pause_job(clients, named),
            resume_job(clients, named),
            redrive_job(clients, named),
            replay_job(clients, named),
        ],
        sensors=sensors,
        schedules=[maintenance_schedule()],
    )


def _drain_job(stream: Stream, key_prefix: Sequence[str]) -> dg.JobDefinition:
    job = dg.define_asset_job(
        tags.job_name(stream),
        selection=dg.AssetSelection.assets(asset_key(stream, key_prefix)).without_checks(),
        executor_def=dg.in_process_executor,
        description=f"Drain topic {stream.topic}. The sensor launches it; by hand it drains what is free, up to now.",
    )
    return job  # type: ignore[return-value]

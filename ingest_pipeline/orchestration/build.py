"""Makes Dagster definitions from streams, for this code location or for another project."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import dagster as dg

from ..core.stream import Stream
from ..core.streams import by_name
from ..operations.clients import Clients
from ..operations.stream_context import StreamContext
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

    The definitions contain no executor and no resource, so `Definitions.merge` accepts them beside another project's.

    Args:
        settings: read from the environment by default.
        key_prefix: in front of every asset key.

    Raises:
        SettingsError: invalid settings or streams.
    """
    streams = list(streams)
    if settings is None:
        settings = load_settings({name: stream.job for name, stream in by_name(streams).items()})
    return definitions_with(Clients(settings), streams, key_prefix, group)


def definitions_with(
    clients: Clients, streams: Iterable[Stream], key_prefix: Sequence[str] = (), group: str = "ingest"
) -> dg.Definitions:
    """The definitions of `build_definitions` with these clients."""
    named = by_name(streams)
    contexts = {name: StreamContext(stream, clients, tuple(key_prefix)) for name, stream in named.items()}
    everything = list(contexts.values())
    sensors = [*map(stream_sensor, everything), *alert_sensors(everything, clients.settings.webhook)]
    return dg.Definitions(
        assets=[
            *(topic_spec(stream_context, group) for stream_context in everything),
            *(stream_asset(stream_context, group) for stream_context in everything),
        ],
        asset_checks=[stream_checks(stream_context) for stream_context in everything],
        jobs=[
            *map(_drain_job, everything),
            maintenance_job(clients, everything, {sensor.name for sensor in sensors}),
            pause_job(contexts),
            resume_job(contexts),
            redrive_job(contexts),
            replay_job(contexts),
        ],
        sensors=sensors,
        schedules=[maintenance_schedule()],
    )


def _drain_job(stream_context: StreamContext) -> dg.JobDefinition:
    stream = stream_context.stream
    job = dg.define_asset_job(
        tags.job_name(stream.job),
        selection=dg.AssetSelection.assets(asset_key(stream_context)).without_checks(),
        executor_def=dg.in_process_executor,
        description=f"Drain topic {stream.topic}. The sensor launches it; by hand it drains what is free, up to now.",
    )
    return job  # type: ignore[return-value]

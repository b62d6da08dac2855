"""Makes Dagster definitions from streams, for this code location or for another project."""

from collections.abc import Iterable, Sequence

import dagster as dg

from ..core.stream import Stream
from ..core.streams import by_name, jobs_of
from ..operations.clients import Clients
from ..operations.stream_context import StreamContext
from ..settings import Settings, settings_of
from . import tags
from .asset_keys import asset_key
from .assets import job_assets, topic_spec
from .job_checks import job_checks
from .jobs.maintenance import maintenance_job, maintenance_schedule
from .jobs.operation import operation_job
from .jobs.operator_jobs import OPERATIONS
from .sensor.alerts import alert_sensor
from .sensor.sensor import job_sensor
from .sensor.start_queue import StartQueue


def build_definitions(
    streams: Iterable[Stream], settings: Settings | None = None, key_prefix: Sequence[str] = (), group: str = "ingest"
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
        settings = settings_of(by_name(streams).values())
    return definitions_with(Clients(settings), streams, key_prefix, group)


def definitions_with(
    clients: Clients, streams: Iterable[Stream], key_prefix: Sequence[str] = (), group: str = "ingest"
) -> dg.Definitions:
    location = Location(clients, streams, key_prefix, group)
    return dg.Definitions.merge(*map(location.of_job, location.jobs), location.of_all())


class Location:
    """The definitions of streams that share clients, job by job."""

    def __init__(
        self, clients: Clients, streams: Iterable[Stream], key_prefix: Sequence[str] = (), group: str = "ingest"
    ) -> None:
        named = by_name(streams)
        self._clients, self._group, self._start_queue = clients, group, StartQueue(clients.clock)
        self._stream_contexts = {
            name: StreamContext(stream, clients, tuple(key_prefix)) for name, stream in named.items()
        }
        self.jobs = {
            job.name: [self._stream_contexts[stream.name] for stream in job.streams] for job in jobs_of(named.values())
        }

    def of_job(self, job: str) -> dg.Definitions:
        """The assets, checks, sensor and drain job of a job's streams."""
        members = self.jobs[job]
        return dg.Definitions(
            assets=[
                *(topic_spec(stream_context, self._group) for stream_context in members),
                job_assets(job, members, self._group),
            ],
            asset_checks=[job_checks(job, members)],
            jobs=[_drain_job(job, members)],
            sensors=[job_sensor(members, self._start_queue)],
        )

    def of_all(self) -> dg.Definitions:
        """The jobs, the schedule and the alert sensors that all streams share."""
        stream_contexts, webhook = list(self._stream_contexts.values()), self._clients.settings.webhook
        alerts = [] if webhook is None else [alert_sensor(stream_contexts, webhook)]
        sensors = {*map(tags.sensor_name, self.jobs), *(sensor.name for sensor in alerts)}
        return dg.Definitions(
            jobs=[
                maintenance_job(self._clients, stream_contexts, sensors),
                *(operation_job(*item, self._stream_contexts) for item in OPERATIONS.items()),
            ],
            sensors=alerts,
            schedules=[maintenance_schedule()],
        )


def _drain_job(job: str, stream_contexts: Sequence[StreamContext]) -> dg.JobDefinition:
    topics = ", ".join(stream_context.stream.topic for stream_context in stream_contexts[:3])
    drained = f"topic {topics}" if len(stream_contexts) == 1 else f"{len(stream_contexts)} topics: {topics}, …"
    definition = dg.define_asset_job(
        tags.job_name(job),
        selection=dg.AssetSelection.assets(*map(asset_key, stream_contexts)).without_checks(),
        executor_def=dg.in_process_executor,
        run_tags=tags.kubernetes_tags(stream_contexts[0].job_settings),
        description=f"Drain {drained}. The sensor launches the job. Launched by hand it drains the free partitions.",
    )
    return definition  # type: ignore[return-value]

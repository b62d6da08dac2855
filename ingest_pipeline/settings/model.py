"""All settings as frozen values. Building them reads no environment.

A field's description is the only source of docs/configuration.md and of `ingest settings`.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

from ..core.errors import SettingsError
from .job_settings import JobSettings
from .kafka import KafkaProperties
from .shared_settings import SharedSettings
from .stream_settings import StreamSettings

T = TypeVar("T")


class Settings(SharedSettings):
    """All settings.

    Attributes:
        kafka: librdkafka properties by name, always with "bootstrap.servers".
        streams: settings by stream. Use `for_stream` to read them.
        jobs: settings by job. Use `for_job` to read them.
    """

    kafka: KafkaProperties = KafkaProperties()
    stream_defaults: StreamSettings = StreamSettings()
    streams: Mapping[str, StreamSettings] = {}
    job_defaults: JobSettings = JobSettings()
    jobs: Mapping[str, JobSettings] = {}

    @property
    def accepts_losses(self) -> bool:
        """Whether runs of a stream accept losses themselves, by ON_DATA_LOSS=continue."""
        return any(stream.on_data_loss == "continue" for stream in self.streams.values())

    def for_stream(self, name: str) -> StreamSettings:
        """A stream's settings, with its overrides. Raises SettingsError for a stream that was not loaded."""
        return _loaded("stream", name, self.streams)

    def for_job(self, name: str) -> JobSettings:
        """A job's settings, with its overrides. Raises SettingsError for a job that was not loaded."""
        return _loaded("job", name, self.jobs)


def _loaded(kind: str, name: str, settings: Mapping[str, T]) -> T:
    if name not in settings:
        near = get_close_matches(name, settings, n=1, cutoff=0.0)
        hint = f": the nearest name is {near[0]!r}" if near else ""
        raise SettingsError(f"no settings were loaded for a {kind} called {name!r}{hint}")
    return settings[name]

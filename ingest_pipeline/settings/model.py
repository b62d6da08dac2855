"""All settings as frozen values. Building them reads no environment.

A field's description is the only source of docs/configuration.md and of `ingest settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from ..core.errors import SettingsError
from .kafka import KafkaProperties
from .shared_settings import SharedSettings
from .stream_settings import StreamSettings


class Settings(SharedSettings):
    """All settings.

    Attributes:
        kafka: librdkafka properties by name, always with "bootstrap.servers".
        stream_defaults: the settings of a stream without overrides.
        streams: settings by stream. Use `for_stream` to read them.
    """

    kafka: KafkaProperties = KafkaProperties()
    stream_defaults: StreamSettings = StreamSettings()
    streams: Mapping[str, StreamSettings] = {}

    def for_stream(self, name: str) -> StreamSettings:
        """A stream's settings, with its overrides. Raises SettingsError for a stream that was not loaded."""
        if name not in self.streams:
            near = get_close_matches(name, self.streams, n=1, cutoff=0.0)
            hint = f": the nearest name is {near[0]!r}" if near else ""
            raise SettingsError(f"no settings were loaded for a stream called {name!r}{hint}")
        return self.streams[name]

"""Everything that can be set: names, defaults, ranges and meanings. Frozen values; building one reads no environment.

A field's variable is its name in capitals (`batch_timeout_seconds` is BATCH_TIMEOUT). Its description is the
one source of docs/configuration.md and of `ingest settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from ..core.errors import SettingsError
from .kafka import KafkaProperties
from .shared_settings import SharedSettings
from .stream_settings import StreamSettings


class Settings(SharedSettings):
    """Everything that can be set.

    Attributes:
        kafka: librdkafka properties by name, "bootstrap.servers" always among them.
        stream_defaults: what a stream has that sets nothing of its own.
        streams: by name; `for_stream` is the way to read it.
    """

    kafka: KafkaProperties = KafkaProperties()
    stream_defaults: StreamSettings = StreamSettings()
    streams: Mapping[str, StreamSettings] = {}

    def for_stream(self, name: str) -> StreamSettings:
        """A stream's settings, its own over the common ones. Raises SettingsError when none were loaded."""
        if name not in self.streams:
            near = get_close_matches(name, self.streams, n=1, cutoff=0.0)
            hint = f"; the nearest name is {near[0]!r}" if near else ""
            raise SettingsError(f"no settings were loaded for a stream called {name!r}{hint}")
        return self.streams[name]

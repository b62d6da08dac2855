"""Environment variables and `.env` → validated, frozen settings."""

from .kafka import KafkaProperties
from .load import Setting, describe, load_settings, streams_place
from .model import Settings, StreamSettings

__all__ = ["KafkaProperties", "Setting", "Settings", "StreamSettings", "describe", "load_settings", "streams_place"]

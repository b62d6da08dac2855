"""Environment variables and `.env` → validated, frozen settings."""

from .declared import settings_of
from .descriptions import Setting, describe
from .job_settings import JobSettings
from .kafka import KafkaProperties
from .load import load_settings, streams_import_path
from .model import Settings
from .stream_settings import StreamSettings

__all__ = [
    "JobSettings",
    "KafkaProperties",
    "Setting",
    "Settings",
    "StreamSettings",
    "describe",
    "load_settings",
    "settings_of",
    "streams_import_path",
]

"""Whether Dagster takes what a stream declares for its assets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from .errors import SettingsError

_ASSET = re.compile(r"[A-Za-z0-9_]+")
_TAG = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
_LEAST_SILENCE = timedelta(minutes=1)
"""Dagster's shortest freshness window."""


def check_asset(stream: str, topic_asset: str, tags: Mapping[str, str], max_silence: timedelta | None) -> None:
    """Raises SettingsError with the reason."""
    if not _ASSET.fullmatch(topic_asset):
        raise SettingsError(f"stream {stream}: topic_asset {topic_asset!r} is not of A-Z, a-z, 0-9 and _")
    for key, value in tags.items():
        if not _TAG.fullmatch(key) or key.startswith("dagster/"):
            raise SettingsError(
                f"stream {stream}: tag {key!r} is not `key` or `namespace/key`, each of up to 63 of A-Z, a-z,"
                " 0-9, _, . and -. The namespace dagster is Dagster's own"
            )
        if not _TAG_VALUE.fullmatch(value):
            raise SettingsError(f"stream {stream}: the value of tag {key} is not up to 63 of A-Z, a-z, 0-9, _, . and -")
    if max_silence is not None and max_silence < _LEAST_SILENCE:
        raise SettingsError(f"stream {stream}: max_silence is {max_silence}, at least a minute is needed")

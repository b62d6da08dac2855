"""Whether options fit a table that exists."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping

from .errors import SettingsError


def check_table(coordinates: bool, timestamp_zone: str, needing_coordinates: Mapping[str, object]) -> None:
    """Raises SettingsError with the reason, which does not name the stream.

    Args:
        needing_coordinates: option → its value, for options of tables with Kafka coordinates.
    """
    if coordinates and timestamp_zone:
        raise SettingsError("timestamp_zone is for a table that exists, with coordinates=False")
    for option, value in needing_coordinates.items():
        if value and not coordinates:
            raise SettingsError(f"{option} is for a table with the Kafka coordinates, and coordinates is False")
    if timestamp_zone:
        try:
            zoneinfo.ZoneInfo(timestamp_zone)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            raise SettingsError(f"timestamp_zone {timestamp_zone!r} is not a time zone, such as UTC") from None

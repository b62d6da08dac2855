from typing import Any

from msgspec.structs import replace


def to_celsius(event: Any) -> Any:
    """The event in degrees Celsius. None drops a reading without a known unit."""
    if event.unit == "F":
        return replace(event, level=(event.level - 32) / 1.8, unit="C")
    return event if event.unit == "C" else None

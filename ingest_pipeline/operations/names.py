"""What a stream's job and sensor are called in Dagster."""

from __future__ import annotations

from ..core.stream import Stream


def job_name(stream: Stream) -> str:
    return f"drain_{stream.name}"


def sensor_name(stream: Stream) -> str:
    return f"{stream.name}_sensor"

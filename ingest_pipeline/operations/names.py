"""The names of a stream's job and sensor in Dagster."""

from __future__ import annotations

from ..core.stream import Stream


def job_name(stream: Stream) -> str:
    return f"drain_{stream.name}"


def sensor_name(stream: Stream) -> str:
    return f"{stream.name}_sensor"

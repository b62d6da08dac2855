"""A code location for the price of idle: IDLE_STREAMS streams, or as many sensors that do nothing but skip."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime

import dagster as dg
from msgspec import Struct, field

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration.build import build_definitions

COUNT = int(os.environ.get("IDLE_STREAMS", "100"))


class Idle(Struct):
    """Nothing comes."""

    value: float
    event_time: datetime = field(name="timestamp")


def idle_streams() -> list[Stream]:
    first = Stream(name="idle_0", event=Idle)
    return [first, *(replace(first, name=f"idle_{i}", topic="", table="", job="") for i in range(1, COUNT))]


@dg.op
def nothing() -> None:
    """Never launched."""


@dg.job
def never() -> None:
    nothing()


def skipping(number: int, seconds: int) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"skip_{number}",
        job=never,
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def skip() -> dg.SkipReason:
        return dg.SkipReason("nothing to do")

    return skip


if os.environ.get("IDLE_SKIP_SECONDS"):
    defs = dg.Definitions(
        jobs=[never], sensors=[skipping(i, int(os.environ["IDLE_SKIP_SECONDS"])) for i in range(COUNT)]
    )
else:
    defs = dg.Definitions.merge(build_definitions(idle_streams()), dg.Definitions(executor=dg.in_process_executor))

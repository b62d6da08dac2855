"""A code location of IDLE_STREAMS streams in IDLE_JOBS jobs, or of as many sensors that only skip."""

import os
from datetime import datetime

import dagster as dg
from msgspec import Struct, field

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration.build import build_definitions

COUNT = int(os.environ.get("IDLE_STREAMS", "100"))
JOBS = int(os.environ.get("IDLE_JOBS", "0"))
"""0: every stream has a job of its own."""


class Idle(Struct):
    """Nothing comes."""

    value: float
    event_time: datetime = field(name="timestamp")


def idle_streams() -> list[Stream]:
    jobs = [f"shared_{number % JOBS}" if JOBS else "" for number in range(COUNT)]
    return [Stream(name=f"idle_{number}", event=Idle, job=job) for number, job in enumerate(jobs)]


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

"""The settings that every job may override: runs and the sensor."""

from typing import Annotated

from pydantic import Field

from .values import DAY_SECONDS, QUANTITY_SHAPE, Quantity, Values


class JobSettings(Values):
    """Settings that a job may override: `SITES_PARALLELISM` overrides `PARALLELISM` for the job `sites`."""

    parallelism: int = Field(
        default=1, ge=1, le=64, description="The number of runs that share the partitions of a job's streams."
    )
    run_max_seconds: int = Field(
        default=600, ge=10, le=DAY_SECONDS, description="A run ends after this many seconds, and a new run takes over."
    )
    run_idle_seconds: int = Field(
        default=60, ge=0, le=DAY_SECONDS, description="A run ends after this many seconds without a record."
    )
    run_max_batches: int = Field(
        default=0, ge=0, le=1_000_000_000, description="A run ends after this many batches, and 0 means no limit."
    )
    poll_seconds: int = Field(
        default=1,
        ge=1,
        le=300,
        description="The sensor checks for lag at this interval, and with 1 or 2 it polls up to three idle streams"
        " between Dagster's ticks, which are at least 5 seconds apart.",
    )
    retry_seconds: int = Field(
        default=60,
        ge=0,
        le=3600,
        description="A run retries for this many seconds while Kafka or PostgreSQL is unavailable.",
    )
    run_cpu: Annotated[Quantity | None, QUANTITY_SHAPE] = Field(
        default=None, description="The CPU request of a run's pod in Kubernetes."
    )
    run_memory: Annotated[Quantity | None, QUANTITY_SHAPE] = Field(
        default=None, description="The memory request and limit of a run's pod in Kubernetes."
    )

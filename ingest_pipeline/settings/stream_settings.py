"""The settings that every stream may override: batches, records, reports and checks."""

from typing import Annotated, Literal

from pydantic import Field

from ..core.choices import NaiveTimestamps, OnDataLoss, ReportAs, Tombstones, WriteMethod
from .values import DAY_SECONDS, MIB, NAME_SHAPE, ByteCount, Name, StartFrom, Values


class StreamSettings(Values):
    """Settings that a stream may override: `PRICE_BATCH_SIZE` overrides `BATCH_SIZE` for the stream `price`."""

    batch_size: int = Field(
        default=1000, ge=1, le=100_000, description="A batch is written when it holds this many records."
    )
    records_per_commit: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="With a backlog, several batches share one transaction of at most this many records.",
    )
    batch_timeout_seconds: float = Field(
        default=1.0,
        ge=0.01,
        le=60,
        description="A batch is written at most this many seconds after its first record arrived, and the first batch"
        " of a run as soon as the run has read the backlog.",
    )
    batch_bytes: ByteCount = Field(
        default=16 * MIB,
        ge=MIB // 16,
        le=256 * MIB,
        description="A batch is written when the values of its records reach this many bytes in total.",
    )
    start_from: StartFrom = Field(
        default="earliest", description="The position in the topic from which a new stream reads."
    )
    adopt_group: Annotated[Name | None, NAME_SHAPE] = Field(
        default=None,
        description="A new stream continues from the committed offsets of this consumer group, and refuses to start"
        " if the group has none for the topic.",
    )
    report_seconds: int = Field(
        default=60, ge=1, le=3600, description="A run reports its progress to Dagster at this interval."
    )
    report_as: ReportAs = Field(
        default=ReportAs.OBSERVATION,
        description="The kind of asset event that reports progress, while the end of a run is always a"
        " materialization.",
    )
    max_delay_seconds: int = Field(
        default=300,
        ge=1,
        le=DAY_SECONDS,
        description="If a record waits longer than this, the check up_to_date warns and `ingest status` reports"
        " degraded.",
    )
    naive_timestamps: NaiveTimestamps = Field(
        default=NaiveTimestamps.UTC,
        description="An event time without a zone counts as UTC, or its record becomes a dead letter.",
    )
    write_method: WriteMethod = Field(
        default=WriteMethod.COPY, description="SQLAlchemy's bulk insert uses binary COPY or INSERT."
    )
    max_record_bytes: ByteCount = Field(
        default=MIB,
        ge=1024,
        le=256 * MIB,
        description="A record with a larger value becomes a dead letter and is not decoded.",
    )
    tombstones: Tombstones = Field(
        default=Tombstones.SKIP,
        description="A record without a value is skipped and counted, or becomes a dead letter.",
    )
    dead_letter_limit: Literal["on", "off"] = Field(
        default="on", description="With on, a run stops when too many records are refused."
    )
    dead_letter_max_ratio: float = Field(
        default=0.1, ge=0.001, le=1, description="The share of the last 1,000 records that may become dead letters."
    )
    dead_letter_max_consecutive: int = Field(
        default=100, ge=1, le=1_000_000, description="The number of consecutive records that may become dead letters."
    )
    on_data_loss: OnDataLoss = Field(
        default=OnDataLoss.STOP,
        description="If Kafka lost records, the stream stops until an operator accepts the gap, or it records the gap"
        " and continues.",
    )
    dead_letter_max_bytes: ByteCount = Field(
        default=MIB,
        ge=1024,
        le=256 * MIB,
        description="A dead letter keeps at most this many bytes of its record's value.",
    )

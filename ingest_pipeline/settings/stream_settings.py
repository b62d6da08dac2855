"""The settings that every stream may override, and their variables."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .values import DAY_SECONDS, MIB, NAME_SHAPE, ByteCount, Name, StartFrom, Values


class StreamSettings(Values):
    """What every stream may have of its own: `PRICE_BATCH_SIZE` beats `BATCH_SIZE` for the stream `price`."""

    batch_size: int = Field(
        default=1000, ge=1, le=100_000, description="A batch is written when it holds this many records."
    )
    records_per_commit: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="While more records wait to be read, batches share one transaction, up to this many records.",
    )
    batch_timeout_seconds: float = Field(
        default=1.0,
        ge=0.01,
        le=60,
        description="A batch is written this many seconds after its first record came; the first one of a run as soon"
        " as it has read all there is.",
    )
    batch_bytes: ByteCount = Field(
        default=16 * MIB,
        ge=MIB // 16,
        le=256 * MIB,
        description="A batch is written when the values of its records amount to this many bytes.",
    )
    run_max_seconds: int = Field(
        default=600,
        ge=10,
        le=DAY_SECONDS,
        description="A run older than this many seconds ends, and a new one takes over.",
    )
    run_idle_seconds: int = Field(
        default=60, ge=0, le=DAY_SECONDS, description="A run that read no record for this many seconds ends."
    )
    run_max_batches: int = Field(
        default=0, ge=0, le=1_000_000_000, description="A run ends after this many batches; 0 is no limit."
    )
    start_from: StartFrom = Field(
        default="earliest",
        description="The place in the topic where a stream starts for the very first time.",
    )
    adopt_group: Annotated[Name | None, NAME_SHAPE] = Field(
        default=None,
        description="The consumer group whose offsets a new stream takes over, refused when it has none for the topic.",
    )
    parallelism: int = Field(
        default=1,
        ge=1,
        le=64,
        description="The number of runs that share the partitions of a stream at the same time.",
    )
    poll_seconds: int = Field(
        default=1,
        ge=1,
        le=300,
        description="The sensor looks for lag every this many seconds; Dagster evaluates a sensor once in 5 s at most, "
        "so with 1 or 2 a tick of an idle stream looks several times, for three streams at a time.",
    )
    report_seconds: int = Field(
        default=60,
        ge=1,
        le=3600,
        description="A run reports its progress to Dagster every this many seconds.",
    )
    report_as: Literal["observation", "materialization"] = Field(
        default="observation",
        description="The kind of asset event that reports progress; the end is a materialization always.",
    )
    max_delay_seconds: int = Field(
        default=300,
        ge=1,
        le=DAY_SECONDS,
        description="Where a record waits for longer, the check up_to_date warns and `ingest status` says degraded.",
    )
    naive_timestamps: Literal["utc", "reject"] = Field(
        default="utc",
        description="An event time without zone is taken as UTC, or its record is dead-lettered.",
    )
    write_method: Literal["copy", "executemany"] = Field(
        default="copy",
        description="The call that SQLAlchemy's bulk insert is carried by: binary COPY, or INSERT.",
    )
    max_record_bytes: ByteCount = Field(
        default=MIB,
        ge=1024,
        le=256 * MIB,
        description="A record whose value is larger becomes a dead letter, undecoded.",
    )
    tombstones: Literal["skip", "dead-letter"] = Field(
        default="skip", description="A record without a value is skipped and counted, or becomes a dead letter."
    )
    dead_letter_limit: Literal["on", "off"] = Field(
        default="on", description="A run stops when too many records are refused, or goes on whatever their number."
    )
    dead_letter_max_ratio: float = Field(
        default=0.1, ge=0.001, le=1, description="The share of the last 1,000 records that may become dead letters."
    )
    dead_letter_max_consecutive: int = Field(
        default=100, ge=1, le=1_000_000, description="The number of records in a row that may become dead letters."
    )
    on_data_loss: Literal["stop", "continue"] = Field(
        default="stop",
        description="With records lost in Kafka: stop until an operator accepts the gap, or record it and go on.",
    )
    dead_letter_max_bytes: ByteCount = Field(
        default=MIB,
        ge=1024,
        le=256 * MIB,
        description="A dead letter keeps at most this many bytes of its record's value.",
    )
    retry_seconds: int = Field(
        default=60,
        ge=0,
        le=3600,
        description="A run retries for this many seconds while Kafka or PostgreSQL is unavailable.",
    )

"""What can be set: names, defaults, ranges and meanings. Frozen values; building one reads no environment.

A field's variable is its name in capitals (`batch_timeout_seconds` is BATCH_TIMEOUT). Its description is the
one source of docs/configuration.md and of `ingest settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ..core.errors import SettingsError
from .kafka import KafkaProperties
from .values import MIB, ByteCount, PostgresUrl, SchemaName, Shape, StartFrom, WebhookUrl, sqlalchemy_url

DAY_SECONDS = 86400
_NAME_SHAPE = Shape("1 to 200 characters without spaces")
_PLACE_SHAPE = Shape("module:name, such as my_project.streams:STREAMS")
Place = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"), _PLACE_SHAPE]
Name = Annotated[str, StringConstraints(pattern=r"^\S{1,200}$"), _NAME_SHAPE]


class Values(BaseSettings):
    """Frozen values. Their only source is what the constructor is given."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


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
    adopt_group: Annotated[Name | None, _NAME_SHAPE] = Field(
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


class SharedSettings(Values):
    """What holds for all streams alike."""

    ingest_streams: Place = Field(
        default="ingest_pipeline.streams:STREAMS", description="The list of streams, and the module that has it."
    )

    database_url: PostgresUrl = Field(
        default=SecretStr("postgresql://postgres@localhost:5432/postgres"),
        description="The database that holds the event tables and the ledger.",
    )
    database_schema: SchemaName = Field(default="public", description="The schema of the event tables.")
    ledger_schema: SchemaName = Field(default="ingest", description="The schema of positions, dead letters and gaps.")
    database_synchronous_commit: Literal["on", "off"] = Field(
        default="on",
        description="With off, COMMIT does not wait for the disk, and a crash undoes batches with their positions.",
    )
    database_pool_min: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="The number of connections that a process keeps in its pool once opened.",
    )
    database_pool_max: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="The number of pooled connections that a process never exceeds.",
    )
    kafka_group_prefix: Name = Field(
        default="ingest-",
        description="The consumer group of a stream is this, followed by the stream's name.",
    )
    allow_insecure_tls: bool = Field(
        default=False, description="With 1, Kafka's certificates may go unverified, which is for tests only."
    )
    run_start_seconds: int = Field(
        default=0,
        ge=0,
        le=3600,
        description="Another run is launched when a run has not started within this many seconds, or within twice the"
        " time that recent starts took, and 0 means 30 for Dagster's default launcher and 300 for any other.",
    )
    run_retention_days: int = Field(
        default=7,
        ge=1,
        le=3650,
        description="Dagster's records of runs that did not fail and of ticks that launched one are deleted after so"
        " many days.",
    )
    failed_run_retention_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="Dagster's records of runs and ticks that failed are deleted after so many days.",
    )
    run_retention_keep: int = Field(
        default=200,
        ge=0,
        le=1_000_000,
        description="Of each stream and each other job, this many latest runs are kept whatever their age.",
    )
    settled_letter_retention_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="Dead letters that were redriven or discarded are deleted after so many days, open ones never.",
    )
    alert_webhook_url: Annotated[WebhookUrl | None, Shape("an address that begins with https:// or http://")] = Field(
        default=None, description="Where messages are posted when a stream begins to fail, and when it is well again."
    )
    log_format: Literal["logfmt", "json"] = Field(default="logfmt", description="The form of a line in the log.")

    @model_validator(mode="after")
    def _pool(self) -> Self:
        if self.database_pool_max < self.database_pool_min:
            raise ValueError(f"is {self.database_pool_max}, less than DATABASE_POOL_MIN, {self.database_pool_min}")
        return self

    @property
    def sqlalchemy_url(self) -> str:
        """The database's URL as SQLAlchemy writes it, `postgresql+psycopg://…`, with the password in it."""
        return sqlalchemy_url(self.database_url.get_secret_value())

    @property
    def webhook(self) -> str | None:
        """The webhook's address as it is."""
        return None if self.alert_webhook_url is None else self.alert_webhook_url.get_secret_value()


class Settings(SharedSettings):
    """Everything that can be set.

    Attributes:
        kafka: librdkafka properties by name, "bootstrap.servers" always among them.
        stream_defaults: what a stream has that sets nothing of its own.
        streams: by name; `for_stream` is the way to read it.
    """

    kafka: KafkaProperties = KafkaProperties()
    stream_defaults: StreamSettings = StreamSettings()
    streams: Mapping[str, StreamSettings] = {}

    def for_stream(self, name: str) -> StreamSettings:
        """A stream's settings, its own over the common ones. Raises SettingsError when none were loaded."""
        if name not in self.streams:
            near = get_close_matches(name, self.streams, n=1, cutoff=0.0)
            hint = f"; the nearest name is {near[0]!r}" if near else ""
            raise SettingsError(f"no settings were loaded for a stream called {name!r}{hint}")
        return self.streams[name]


def variable(field: str) -> str:
    """The environment variable of a field."""
    return "BATCH_TIMEOUT" if field == "batch_timeout_seconds" else field.upper()


STREAM_VARIABLES = {variable(name): name for name in StreamSettings.model_fields}
SHARED_VARIABLES = {variable(name): name for name in SharedSettings.model_fields}

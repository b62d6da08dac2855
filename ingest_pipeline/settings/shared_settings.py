"""The settings of the whole deployment."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from .database_url import sqlalchemy_url
from .values import ImportPath, Name, PostgresUrl, SchemaName, Shape, Values, WebhookUrl


class SharedSettings(Values):
    """What holds for all streams alike."""

    ingest_streams: ImportPath = Field(
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

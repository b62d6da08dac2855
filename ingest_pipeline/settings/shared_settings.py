"""The settings of the whole deployment."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from .database_url import database_name, sqlalchemy_url
from .values import Hidden, ImportPath, Name, PostgresUrl, SchemaName, Shape, Values, WebhookUrl


def _addresses(value: str) -> str:
    """Returns the addresses unchanged. Raises ValueError."""
    for address in value.split(","):
        if re.fullmatch(r"\s*https?://[^\s/]+\S*\s*", address) is None:
            raise ValueError
        if "@" in address:
            raise ValueError("put the user and the password into SCHEMA_REGISTRY_BASIC_AUTH")
    return value


def _login(value: Hidden) -> Hidden:
    """Returns the login unchanged. Raises ValueError."""
    if re.fullmatch(r"[^:\s]+:.*", value.get_secret_value()) is None:
        raise ValueError
    return value


FilePath = Annotated[str | None, Shape("a path")]


class SchemaRegistrySettings(Values):
    """Settings for streams whose format needs a schema registry."""

    schema_registry_url: Annotated[
        str | None,
        AfterValidator(lambda value: value and _addresses(value)),
        Shape("one or more http:// or https:// addresses with commas between them, without a login"),
    ] = Field(
        default=None,
        description="The addresses of the schema registry for streams whose format is Avro, tried in turn.",
    )
    schema_registry_basic_auth: Annotated[
        Hidden | None, AfterValidator(lambda value: value and _login(value)), Shape("user:password")
    ] = Field(default=None, description="The login for the schema registry.")
    schema_registry_ssl_ca: FilePath = Field(
        default=None,
        description="The file or folder of certificate authorities for the schema registry, instead of certifi's list.",
    )
    schema_registry_ssl_certificate: FilePath = Field(
        default=None, description="The file of the client certificate for the schema registry."
    )
    schema_registry_ssl_key: FilePath = Field(
        default=None, description="The file of the client certificate's key for the schema registry."
    )

    @property
    def schema_registry(self) -> dict[str, str]:
        """Properties of confluent-kafka's SchemaRegistryClient, with the password. Empty without an address."""
        if self.schema_registry_url is None:
            return {}
        login = self.schema_registry_basic_auth
        properties = {
            "url": self.schema_registry_url,
            "basic.auth.user.info": None if login is None else login.get_secret_value(),
            "ssl.ca.location": self.schema_registry_ssl_ca,
            "ssl.certificate.location": self.schema_registry_ssl_certificate,
            "ssl.key.location": self.schema_registry_ssl_key,
        }
        return {name: value for name, value in properties.items() if value is not None}


class SharedSettings(SchemaRegistrySettings):
    """Settings that apply to all streams."""

    ingest_streams: ImportPath = Field(
        default="ingest_pipeline.streams:STREAMS", description="The module and the name of the list of streams."
    )

    database_url: PostgresUrl = Field(
        default=SecretStr("postgresql://postgres@localhost:5432/postgres"),
        description="The database of the event tables and the ledger.",
    )
    database_schema: SchemaName = Field(default="public", description="The schema of the event tables.")
    ledger_schema: SchemaName = Field(default="ingest", description="The schema of positions, dead letters and gaps.")
    database_synchronous_commit: Literal["on", "off"] = Field(
        default="on",
        description="With off, COMMIT does not wait for the disk, and a crash of PostgreSQL may undo the last batches"
        " together with their positions.",
    )
    database_pool_min: int = Field(
        default=5, ge=1, le=1000, description="A process keeps up to this many connections open in its pool."
    )
    database_pool_max: int = Field(
        default=20, ge=1, le=1000, description="A process never opens more pooled connections than this."
    )
    kafka_group_prefix: Name = Field(
        default="ingest-", description="The consumer group of a stream is this prefix followed by the stream's name."
    )
    allow_insecure_tls: bool = Field(
        default=False,
        description="With 1, certificates of Kafka and PostgreSQL may stay unverified, which is for tests only.",
    )
    run_start_seconds: int = Field(
        default=0,
        ge=0,
        le=3600,
        description="If a run has not started after this many seconds, or after twice the slowest recent start if"
        " longer, another run is launched, and 0 means 30 with Dagster's default launcher and 300 with any other.",
    )
    run_retention_days: int = Field(
        default=7,
        ge=1,
        le=3650,
        description="Dagster's records of runs that did not fail, and of ticks that launched a run, are deleted after"
        " this many days.",
    )
    failed_run_retention_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="Dagster's records of failed runs and ticks are deleted after this many days.",
    )
    run_retention_keep: int = Field(
        default=200,
        ge=0,
        le=1_000_000,
        description="The latest runs of each stream and of each other job are kept regardless of age, up to this"
        " number.",
    )
    settled_letter_retention_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="Redriven and discarded dead letters are deleted after this many days, and open ones are never"
        " deleted.",
    )
    alert_webhook_url: Annotated[WebhookUrl | None, Shape("an address that begins with https:// or http://")] = Field(
        default=None, description="Messages about failing and recovered streams are posted to this address."
    )
    alert_after_seconds: int = Field(
        default=60,
        ge=0,
        le=86_400,
        description="A message is posted once a stream has been unwell for this many seconds.",
    )
    log_format: Literal["logfmt", "json"] = Field(default="logfmt", description="The format of log lines.")

    @model_validator(mode="after")
    def _pool(self) -> Self:
        if self.database_pool_max < self.database_pool_min:
            raise ValueError(f"is {self.database_pool_max}, less than DATABASE_POOL_MIN, {self.database_pool_min}")
        return self

    @property
    def sqlalchemy_url(self) -> str:
        """The database's URL for SQLAlchemy, `postgresql+psycopg://…`. The URL contains the password."""
        return sqlalchemy_url(self.database_url.get_secret_value())

    @property
    def database_name(self) -> str:
        return database_name(self.database_url.get_secret_value())

    @property
    def webhook(self) -> str | None:
        """The webhook's address, unmasked."""
        return None if self.alert_webhook_url is None else self.alert_webhook_url.get_secret_value()

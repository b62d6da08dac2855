"""Clients of a code location. Clients open on first use and stay open, because ticks run in the same process every few
seconds."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..core.clock import SystemClock
from ..core.errors import SettingsError
from ..core.ledger_ports import WritingConnection
from ..core.ports import Clock
from ..core.record_keys import record_keys
from ..core.rows import RecordRules
from ..core.start import StartPolicy
from ..core.stream import Stream
from ..settings import Settings
from .decoders import Decoder, decoder_of, key_reader
from .limits import letter_limits, record_rules

if TYPE_CHECKING:
    from ..kafka.admin import Admin
    from ..kafka.source import KafkaSource
    from ..kafka.topic import KafkaTopic
    from ..kafka.topics import KafkaTopics
    from ..postgres.alert_rows import AlertRows
    from ..postgres.database import Database
    from ..postgres.dead_letters import DeadLetters
    from ..postgres.file_positions import FilePosition
    from ..postgres.ledger import PostgresLedger
    from ..postgres.ledgers import PostgresLedgers
    from ..postgres.replay import MissingRows
    from ..postgres.session import PostgresLedgerSession
    from ..postgres.writing_connection import PostgresWritingConnection
    from ..schema_registry.registry import SchemaRegistry


PREPARING_STREAMS = 4
"""Streams of a run that are prepared at the same time. Preparation waits mostly for servers."""


class Clients:
    """Clients for the settings' servers. Confluent's and SQLAlchemy's clients are imported on first use, because
    imports are slow."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings, self.clock = settings, clock or SystemClock()
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._admin: Admin | None = None
        self._schema_registry: SchemaRegistry | None = None

    def database(self) -> Database:
        """The pooled database, made on first use."""
        from ..postgres.database import Database
        from ..postgres.sql import Schemas

        with self._lock:
            if self._database is None:
                self._database = Database(
                    self.settings.sqlalchemy_url,
                    Schemas(self.settings.database_schema, self.settings.ledger_schema),
                    pool_min=self.settings.database_pool_min,
                    pool_max=self.settings.database_pool_max,
                    synchronous_commit=self.settings.database_synchronous_commit,
                )
            return self._database

    def release_idle(self) -> None:
        """Close the pooled sessions with PostgreSQL that are not in use. A run needs them only for moments."""
        with self._lock:
            if self._database is not None:
                self._database.dispose()

    def close(self) -> None:
        """Close the open clients. They open again on the next use."""
        with self._lock:
            if self._database is not None:
                self._database.dispose()
            if self._admin is not None:
                self._admin.close()
            if self._schema_registry is not None:
                self._schema_registry.close()
            self._database, self._admin, self._schema_registry = None, None, None

    def ledger(self, stream: Stream) -> PostgresLedger:
        from ..postgres.ledger import PostgresLedger

        return PostgresLedger(self.database(), stream)

    def ledgers(self, streams: Sequence[Stream]) -> PostgresLedgers:
        """The ledgers of several streams, read together."""
        from ..postgres.ledgers import PostgresLedgers

        return PostgresLedgers(self.database(), streams)

    def alert_rows(self) -> AlertRows:
        """What alerts said about the streams."""
        from ..postgres.alert_rows import AlertRows

        return AlertRows(self.database())

    def writing_connection(self, run_id: str, shared: bool = False) -> PostgresWritingConnection:
        """A new writing session with PostgreSQL, which the caller closes. `shared`: several streams write on it."""
        from ..postgres.writing_connection import PostgresWritingConnection

        return PostgresWritingConnection(self.database(), run_id, shared)

    def ledger_session(
        self, connection: WritingConnection, stream: Stream, *, verify: bool = True
    ) -> PostgresLedgerSession:
        """The stream's ledger session on a connection of `writing_connection`. `verify`: raise SchemaMismatch now."""
        from ..postgres.session import PostgresLedgerSession
        from ..postgres.writing_connection import PostgresWritingConnection

        assert isinstance(connection, PostgresWritingConnection)
        own = self.settings.for_stream(stream.name)
        return PostgresLedgerSession(
            connection,
            stream,
            write_method=own.write_method,
            dead_letter_max_bytes=own.dead_letter_max_bytes,
            limits=letter_limits(own),
            rows_per_insert=own.batch_size,
            clock=self.clock,
            verify=verify,
        )

    def executor(self) -> Executor:
        """Prepares streams beside the drain. The caller closes it."""
        return ThreadPoolExecutor(PREPARING_STREAMS, thread_name_prefix="prepare")

    def dead_letters(self, stream: Stream) -> DeadLetters:
        from ..postgres.dead_letters import DeadLetters

        return DeadLetters(self.database(), stream)

    def missing_rows(self, stream: Stream) -> MissingRows:
        """Stores the rows of a replay."""
        from ..postgres.replay import MissingRows

        return MissingRows(self.database(), stream)

    def file_position(self, stream: Stream, name: str) -> FilePosition:
        """The position in the ledger of a file to load."""
        from ..postgres.file_positions import FilePosition

        return FilePosition(self.database(), stream, name)

    def decoder(self, stream: Stream) -> Decoder:
        """A new decoder of the stream's format. Raises SettingsError if a package or a setting is missing."""
        return decoder_of(stream, self.settings.for_stream(stream.name).naive_timestamps, self.schema_registry)

    def record_rules(self, stream: Stream) -> RecordRules:
        """The rules for refusing, skipping or deleting before decoding. Raises SettingsError as `decoder`."""
        keys = record_keys(stream, key_reader(stream, self.schema_registry))
        return record_rules(self.settings.for_stream(stream.name), stream, keys)

    def schema_registry(self) -> SchemaRegistry:
        """The client for the schema registry, made on first use. Raises SettingsError without SCHEMA_REGISTRY_URL."""
        from ..schema_registry.registry import SchemaRegistry

        if not self.settings.schema_registry:
            raise SettingsError("SCHEMA_REGISTRY_URL is not set, and a stream's format needs a schema registry")
        with self._lock:
            if self._schema_registry is None:
                self._schema_registry = SchemaRegistry(self.settings.schema_registry)
            return self._schema_registry

    def admin(self) -> Admin:
        """The client for questions to Kafka, made on first use."""
        from ..kafka.admin import Admin

        with self._lock:
            if self._admin is None:
                self._admin = Admin(self.settings.kafka)
            return self._admin

    def topic(self, stream: Stream, timeout_seconds: float = 5.0) -> KafkaTopic:
        """The stream's topic, asked through the shared client."""
        from ..kafka.topic import KafkaTopic

        return KafkaTopic(self.admin(), stream.topic, timeout_seconds=timeout_seconds)

    def topics(self, timeout_seconds: float = 5.0) -> KafkaTopics:
        """Questions about several topics, asked through the shared client."""
        from ..kafka.topics import KafkaTopics

        return KafkaTopics(self.admin(), timeout_seconds=timeout_seconds)

    def source(self, streams: Sequence[Stream], ledger_id: str) -> KafkaSource:
        """A new source of the streams' topics, which the caller closes."""
        from ..kafka.source import KafkaSource

        settings = [self.settings.for_stream(stream.name) for stream in streams]
        return KafkaSource(
            self.settings.kafka,
            self.topics(),
            {stream.topic: self.group_id(stream) for stream in streams},
            ledger_id=ledger_id,
            batch_bytes=max(own.batch_bytes for own in settings),
            client_id=f"ingest-{streams[0].job}",
            retry_seconds=self.settings.for_job(streams[0].job).retry_seconds,
            clock=self.clock,
        )

    def group_id(self, stream: Stream) -> str:
        return f"{self.settings.kafka_group_prefix}{stream.name}"

    def start_policy(self, stream: Stream) -> StartPolicy:
        own = self.settings.for_stream(stream.name)
        return StartPolicy(own.start_from, own.adopt_group, self.group_id(stream))

"""A stream together with its settings and the clients of its code location."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.stream import Stream
from ..settings import JobSettings, StreamSettings
from .clients import Clients

if TYPE_CHECKING:
    from ..kafka.topic import KafkaTopic
    from ..postgres.ledger import PostgresLedger


@dataclass(frozen=True, slots=True)
class StreamContext:
    """What sensors, runs, jobs, checks and commands receive to work on one stream.

    Attributes:
        key_prefix: precedes the stream's asset keys in Dagster.
    """

    stream: Stream
    clients: Clients
    key_prefix: tuple[str, ...] = ()

    @property
    def settings(self) -> StreamSettings:
        return self.clients.settings.for_stream(self.stream.name)

    @property
    def job_settings(self) -> JobSettings:
        return self.clients.settings.for_job(self.stream.job)

    @property
    def ledger(self) -> PostgresLedger:
        return self.clients.ledger(self.stream)

    @property
    def topic(self) -> KafkaTopic:
        return self.clients.topic(self.stream)

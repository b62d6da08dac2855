"""The in-memory server of a world, with refusals, and clients whose death it does not notice at once."""

from collections import deque
from collections.abc import Mapping

from ingest_pipeline.core.errors import (
    DatabaseUnavailable,
    IngestError,
    LedgerConflict,
    NotPermitted,
    SchemaMismatch,
    UnknownFault,
)
from ingest_pipeline.core.record import OwnerRequests
from ingest_pipeline.testing import Fault, MemoryDatabase, MemoryWritingConnection
from ingest_pipeline.testing.database import MemoryBackend
from ingest_pipeline_tests.simulation.jobs import Job, current, is_thread, pause
from ingest_pipeline_tests.simulation.state import SharedState

REFUSALS = (DatabaseUnavailable, NotPermitted, SchemaMismatch, LedgerConflict, UnknownFault)
"""What PostgreSQL may say to a write on a connection that lives on, its transaction rolled back.

One of the environment's stands for all: disk full (53), serialization and deadlock (40), no lock in time (55P03), a
statement canceled (57014) and the others of postgres/errors.py are DatabaseUnavailable before core sees them.
"""
LINGER_SECONDS = 15.0
"""How long the server takes to notice that a client is gone, at most."""
Break = Fault | type[IngestError] | None


class SimDatabase(MemoryDatabase):
    """The server of a simulated run.

    Attributes:
        breaks: faults of the next writes, in their order. None lets a write pass.
        refusal: the error that ends the present write.
        writing: job → the writing connection it has opened.
        lingering: (time of death, backend) of clients whose death the server has not noticed.
    """

    def __init__(self, state: SharedState) -> None:
        super().__init__(state.clock)
        self.count = state.count
        self.writing: dict[Job, SimWritingConnection] = {}
        self.lingering: list[tuple[float, MemoryBackend]] = []
        self.breaks: deque[Break] = deque()
        self.refusal: type[IngestError] | None = None

    def next_fault(self) -> Fault | None:
        fault = self.breaks.popleft() if self.breaks else None
        self.refusal = fault if isinstance(fault, type) else None
        return fault if isinstance(fault, Fault) else None

    def end_lingering(self) -> None:
        before = self.clock.monotonic() - LINGER_SECONDS
        for died_at, backend in self.lingering:
            if died_at <= before:
                self.end(backend)
        self.lingering = [entry for entry in self.lingering if entry[0] > before]

    def has_session(self, run_id: str) -> bool:
        return any(backend.run_id == run_id for backend in self.backends)


class SimWritingConnection(MemoryWritingConnection):
    def __init__(self, database: SimDatabase, run_id: str) -> None:
        self.server = database
        super().__init__(database, run_id)
        job = current()
        if job is not None and not is_thread():
            database.writing[job] = self

    def heartbeat(self) -> Mapping[str, OwnerRequests]:
        pause("heartbeat")
        return super().heartbeat()

    def close(self) -> None:
        """A process that dies closes nothing: the server notices, or it does not for a while."""
        job = current()
        if job is not None and job.lingers:
            self.server.lingering.append((self.server.clock.monotonic(), self.backend))
        else:
            super().close()

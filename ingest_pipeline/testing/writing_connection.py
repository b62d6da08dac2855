"""The writing connection of a run on a MemoryDatabase."""

from collections.abc import Collection, Mapping

from ..core.ledger import HandoverRequest
from ..core.ledger_ports import WritingConnection
from ..core.record import OwnerRequests
from .database import MemoryDatabase, MemoryTable


class MemoryWritingConnection(WritingConnection):
    """Implements the port.

    Attributes:
        backend: pass it to `MemoryDatabase.end` to break the connection.
        generation: changes with every new session. Locks belong to one generation.
    """

    def __init__(self, database: MemoryDatabase, run_id: str) -> None:
        self.database, self.run_id = database, run_id
        self.generation = 0
        self.owned: dict[str, tuple[int, ...]] = {}
        self.backend = database.open(run_id)

    def repair(self, generation: int) -> None:
        """Open a new session, unless the session is newer than `generation` and alive."""
        if generation == self.generation or not self.backend.alive:
            self.database.end(self.backend)
            self.backend = self.database.open(self.run_id)
            self.generation += 1

    def heartbeat(self) -> Mapping[str, OwnerRequests]:
        with self.database.mutex:
            self.database.require(self.backend)
            return {stream: self._requests(stream, partitions) for stream, partitions in self.owned.items()}

    def _requests(self, stream: str, partitions: Collection[int]) -> OwnerRequests:
        requests = self.database.requests(stream, partitions)
        return OwnerRequests(
            paused_words(self.database.table(stream)),
            HandoverRequest.AT_MAXIMUM_AGE in requests,
            HandoverRequest.NOW in requests,
        )

    def close(self) -> None:
        self.database.end(self.backend)


def paused_words(table: MemoryTable) -> str | None:
    state = table.state
    return f"{state.reason} ({state.paused_by})" if state.paused else None

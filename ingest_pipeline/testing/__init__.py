"""In-memory broker, database and clock: for tests of streams and of the loop, held to the real ones by one suite."""

from ..core.ports import Ledger, LedgerSession, ReplayStore, Source, Topic
from .broker import MemoryBroker
from .clock import SettableClock
from .database import Fault, MemoryDatabase
from .ledger import MemoryLedger
from .letters import MemoryDeadLetters
from .replay import MemoryMissingRows
from .session import MemoryLedgerSession
from .source import MemorySource, MemoryTopic

__all__ = [
    "Fault",
    "MemoryBook",
    "MemoryBroker",
    "MemoryDatabase",
    "MemoryDeadLetters",
    "MemoryLedger",
    "MemoryLedgerSession",
    "MemoryMissingRows",
    "MemorySource",
    "MemoryTopic",
    "SettableClock",
]

PORTS: tuple[type[Ledger], type[LedgerSession], type[ReplayStore], type[Source], type[Topic]] = (
    MemoryLedger,
    MemoryLedgerSession,
    MemoryMissingRows,
    MemorySource,
    MemoryTopic,
)
"""The type says which port each class implements, so mypy compares them."""

"""In-memory broker, database and clock for fast tests. The contract suite runs on these fakes and on real servers."""

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
"""The annotation lets mypy compare every fake with the port of core."""

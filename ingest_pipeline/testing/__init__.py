"""In-memory broker, database and clock: for tests of streams and of the loop, held to the real ones by one suite."""

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

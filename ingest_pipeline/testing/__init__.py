"""In-memory broker, database and clock for fast tests. The contract suite runs on these fakes and on real servers."""

from .broker import MemoryBroker
from .clock import InlineExecutor, SettableClock
from .database import Fault, MemoryDatabase
from .ledger import MemoryLedger, MemoryLedgers
from .letters import MemoryDeadLetters, MemoryMissingRows
from .session import MemoryLedgerSession
from .source import MemorySource, MemoryTopic, MemoryTopics
from .writing_connection import MemoryWritingConnection

__all__ = [
    "Fault",
    "InlineExecutor",
    "MemoryBroker",
    "MemoryDatabase",
    "MemoryDeadLetters",
    "MemoryLedger",
    "MemoryLedgerSession",
    "MemoryLedgers",
    "MemoryMissingRows",
    "MemorySource",
    "MemoryTopic",
    "MemoryTopics",
    "MemoryWritingConnection",
    "SettableClock",
]

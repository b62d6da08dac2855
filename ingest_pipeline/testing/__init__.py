"""In-memory broker, database and clock for fast tests. The contract suite runs on these fakes and on real servers."""

from ..core.ledger_ports import Ledger, Ledgers, LedgerSession, ReplayStore, WritingConnection
from ..core.ports import Source, Topic, Topics
from .broker import MemoryBroker
from .clock import SettableClock
from .database import Fault, MemoryDatabase
from .executor import InlineExecutor
from .ledger import MemoryLedger, MemoryLedgers
from .letters import MemoryDeadLetters
from .replay import MemoryMissingRows
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

PORTS: tuple[
    type[Ledger],
    type[Ledgers],
    type[LedgerSession],
    type[ReplayStore],
    type[Source],
    type[Topic],
    type[Topics],
    type[WritingConnection],
] = (
    MemoryLedger,
    MemoryLedgers,
    MemoryLedgerSession,
    MemoryMissingRows,
    MemorySource,
    MemoryTopic,
    MemoryTopics,
    MemoryWritingConnection,
)
"""The annotation lets mypy compare every fake with the port of core."""

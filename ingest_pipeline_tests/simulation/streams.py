"""One stream of a world: its topic, its tables, its checks and its present trouble."""

from dataclasses import replace

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.testing.database import MemoryDatabase, MemoryTable
from ingest_pipeline.testing.ledger import MemoryLedger
from ingest_pipeline.testing.source import MemoryTopic
from ingest_pipeline_tests.samples import READING, Reading
from ingest_pipeline_tests.simulation.checks import Checks
from ingest_pipeline_tests.simulation.model import COLDEST
from ingest_pipeline_tests.simulation.state import SharedState, StreamState
from ingest_pipeline_tests.simulation.topics import Topic

SHARED_JOB, OTHER_JOB = "sites", "roofs"
NAMES = ("reading", "humidity", "pressure", "wind")
"""A world has the first one, two or four of them."""


def declared(count: int) -> list[Stream]:
    """The streams of a new world. Several streams share a job."""
    return [READING] if count == 1 else [Stream(name, Reading, job=SHARED_JOB) for name in NAMES[:count]]


class SimStream(StreamState):
    def __init__(self, state: SharedState, stream: Stream, database: MemoryDatabase, partitions: int) -> None:
        super().__init__(state, stream)
        self._database = database
        self.table: MemoryTable = database.table(self.name)
        self.ledger, self.topic = MemoryLedger(database, stream), MemoryTopic(state.broker, stream.topic)
        self.kafka = Topic(state.broker, stream.topic, self.model, state.count)
        self.kafka.create(partitions)
        self.checks = Checks(self, self.table)
        self.set_strict(True)

    def set_strict(self, strict: bool) -> None:
        """Whether the table has the constraint that refuses the coldest readings."""
        self.model.strict = strict
        self._database.check(self.name, "above_zero_kelvin", lambda row: not strict or row[5] > COLDEST)

    def move_to(self, job: str) -> None:
        """Declare the stream with another job. Runs that are alive keep their streams."""
        self.stream = replace(self.stream, job=job)

    @property
    def in_trouble(self) -> bool:
        """Whether the stream waits for an operator, or for its table."""
        state = self.table.state
        return bool(self.table.locked or state.paused or state.failure_stops or self.must_stand_still())

    def must_stand_still(self) -> str:
        """Why the stream has to wait for an operator, or ""."""
        if not self._database.reachable:
            return ""
        noted = {loss.partition for loss in self.ledger.losses()}
        held = self._database.holders(self.name, list(self.table.positions))
        for partition, position in self.table.positions.items():
            if position.topic_id != self.model.topic_id:
                return f"partition {partition} is of another topic"
            outside = not self.model.starts[partition] <= position.next_offset <= self.model.ends[partition]
            seen = partition not in held and self.kafka.answers(partition)
            if partition in noted or (outside and seen):
                return f"partition {partition} has lost records"
        return ""

    def lag(self) -> int:
        """0 when every partition has a position, and every position is at the end of its log."""
        ends = {partition: self.kafka.stable_end(partition) for partition in self.model.ends}
        positions = self.table.positions
        return sum(abs(end - positions[p].next_offset) if p in positions else 1 for p, end in ends.items())

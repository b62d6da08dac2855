"""What the rules of every part of the machine share."""

from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, rule

from ingest_pipeline_tests.simulation.jobs import Job
from ingest_pipeline_tests.simulation.model import GOOD
from ingest_pipeline_tests.simulation.streams import SimStream
from ingest_pipeline_tests.simulation.world import World

TOLD: Counter[str] = Counter()
"""How often each rule was applied and each thing happened, over all examples of this process."""


def step(**strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule that is counted."""

    def counted(function: Callable[..., None]) -> Any:
        @wraps(function)
        def apply(self: Rules, **arguments: Any) -> None:
            TOLD["steps"] += 1
            TOLD[f"rule {function.__name__}"] += 1
            function(self, **arguments)

        return rule(**strategies)(apply)

    return counted


class Rules(RuleBasedStateMachine):
    world: World

    def stream(self, number: int = 0) -> SimStream:
        streams = list(self.world.streams.values())
        return streams[number % len(streams)]

    def produce_to_all(self, stream: int, partition: int, kinds: list[str]) -> None:
        """These records to one stream, a good one to each of the others."""
        state = self.stream(stream)
        state.kafka.produce(partition, kinds)
        self.produce_to_others(state)

    def produce_to_others(self, state: SimStream) -> None:
        for other in self.world.streams.values():
            if other is not state:
                other.kafka.produce(0, [GOOD])

    def lost_streams(self) -> list[SimStream]:
        return [stream for stream in self.world.streams.values() if stream.must_stand_still()]

    def streams_with_rows(self) -> list[SimStream]:
        return [stream for stream in self.world.streams.values() if stream.checks.rows]

    def go_all(self, points: int, frozen: Job | None = None) -> None:
        for job in list(self.world.processes.alive()):
            if job is not frozen:
                self.world.processes.go(job, points)

    def job(self, which: int) -> Any:
        alive = self.world.processes.alive()
        return alive[which % len(alive)]

"""What can happen to topics, their records and their brokers."""

from hypothesis import strategies as st

from ingest_pipeline_tests.simulation.drawn import KINDS, PARTITION, REGROWN, SHARE, STREAM
from ingest_pipeline_tests.simulation.model import GOOD
from ingest_pipeline_tests.simulation.rules import Rules, step


class KafkaRules(Rules):
    @step(stream=STREAM, partition=PARTITION, kinds=KINDS)
    def produce(self, partition: int, kinds: list[str], stream: int = 0) -> None:
        self.stream(stream).kafka.produce(partition, kinds)

    @step(stream=STREAM, partition=PARTITION)
    def begin_transaction(self, partition: int, stream: int = 0) -> None:
        self.stream(stream).kafka.begin_transaction(partition)

    @step(stream=STREAM, partition=PARTITION, commit=st.booleans())
    def end_transaction(self, partition: int, commit: bool, stream: int = 0) -> None:
        self.stream(stream).kafka.end_transaction(partition, commit)

    @step(how=st.sampled_from(["compact", "change_leader", "add_partition"]), stream=STREAM, partition=PARTITION)
    def change(self, how: str, partition: int, stream: int = 0) -> None:
        """A change that is no loss."""
        getattr(self.stream(stream).kafka, how)(partition)

    @step(
        how=st.sampled_from(["retention", "truncate"]), stream=STREAM, partition=PARTITION, share=SHARE, regrown=REGROWN
    )
    def lose(self, how: str, partition: int, share: float, regrown: list[str], stream: int = 0) -> None:
        """Records are lost, read or not, from the log's beginning or from its end."""
        kafka = self.stream(stream).kafka
        getattr(kafka, how)(partition, share)
        kafka.produce(partition, regrown)

    @step(stream=STREAM, partitions=st.sampled_from([1, 2, 3]), regrown=REGROWN, rounds=st.sampled_from([0, 0, 1, 3]))
    def recreate(self, partitions: int, regrown: list[str], rounds: int = 0, stream: int = 0) -> None:
        """The topic is created again. With `rounds`, it holds as much as before and more, and its readers meet no error
        for a while."""
        state = self.stream(stream)
        ends = dict(state.model.ends)
        partitions = len(ends) if rounds else partitions
        state.kafka.recreate(partitions)
        for partition in range(partitions):
            before = [GOOD] * ends[partition] if rounds else []
            state.kafka.produce(partition, before + regrown * (partition + 1))
        for _ in range(rounds):
            self.go_all(20)
            state.kafka.produce(0, [GOOD, GOOD])
            self.world.tick(20.0)

    @step(stream=STREAM, ticks=st.sampled_from([1, 2, 4]), points=st.sampled_from([5, 40]), regrown=REGROWN)
    def delete_topic(self, ticks: int, points: int, regrown: list[str], stream: int = 0) -> None:
        """The topic is deleted, and created again later. Meanwhile all streams get records but this one."""
        state = self.stream(stream)
        state.kafka.delete()
        for _ in range(ticks):
            self.produce_to_others(state)
            self.world.tick()
            self.go_all(points)
        state.kafka.recreate(1)
        state.kafka.produce(0, regrown)

    @step(away=st.sampled_from(["neither", "neither", "Kafka", "PostgreSQL"]))
    def outage(self, away: str) -> None:
        self.world.broker.set_unavailable(away == "Kafka")
        self.world.database().reachable = away != "PostgreSQL"

    @step(stream=STREAM, partition=PARTITION, away=st.booleans())
    def leader(self, partition: int, away: bool, stream: int = 0) -> None:
        """The broker that leads one partition goes away, or comes back."""
        self.stream(stream).kafka.leader_away(partition, away)

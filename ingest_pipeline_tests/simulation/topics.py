"""Changes of a topic, in the broker and in the model. A partition's number wraps around."""

from collections import Counter
from collections.abc import Iterable

from ingest_pipeline.testing.broker import MemoryBroker
from ingest_pipeline_tests.samples import STAMP_MS
from ingest_pipeline_tests.simulation.model import Model


class Topic:
    """One topic, under whichever id."""

    def __init__(self, broker: MemoryBroker, name: str, model: Model, count: Counter[str]) -> None:
        self._broker, self._name, self._model, self._count = broker, name, model, count

    def create(self, partitions: int) -> None:
        self._broker.create_topic(self._name, partitions)
        self._begin(partitions)

    def produce(self, partition: int, kinds: Iterable[str]) -> None:
        partition %= len(self._model.ends)
        for kind in kinds:
            version = self._model.append(partition, kind)
            self._broker.append(self._name, partition, version.value, timestamp_ms=STAMP_MS)
            self._count[f"records produced: {kind}"] += 1

    def begin_transaction(self, partition: int) -> None:
        """What follows is held back, whoever produced it, as a reader of committed records has to."""
        partition %= len(self._model.ends)
        if partition not in self._model.open_since:
            self._model.open_since[partition] = self._model.ends[partition]
            self._broker.begin_transaction(self._name, partition)

    def end_transaction(self, partition: int, commit: bool) -> None:
        """Of one that is not open any more only the marker is written."""
        partition %= len(self._model.ends)
        self._count["transactions committed" if commit else "transactions aborted"] += 1
        self._model.end_transaction(partition, commit)
        self._broker.end_transaction(self._name, partition, commit=commit)

    def compact(self, partition: int) -> None:
        """Every other record before the last one."""
        partition %= len(self._model.ends)
        stable = self._model.open_since.get(partition, self._model.ends[partition])
        offsets = [offset for offset, _ in self._model.alive(partition, 0, stable - 1)][::2]
        self._count["records compacted"] += len(offsets)
        self._model.hide(partition, offsets)
        self._broker.compact(self._name, partition, offsets)

    def change_leader(self, partition: int) -> None:
        self._count["leaders changed"] += 1
        self._broker.change_leader(self._name, partition % len(self._model.ends))

    def leader_away(self, partition: int, away: bool) -> None:
        """The broker that leads this partition alone does not answer."""
        partition %= len(self._model.ends)
        self._count["leaders away"] += away
        self._broker.set_leader_away(self._name, partition, away)

    def answers(self, partition: int) -> bool:
        return not self._broker.log(self._name, partition).leader_away

    def stable_end(self, partition: int) -> int:
        return self._broker.log(self._name, partition).stable_end

    def retention(self, partition: int, share: float) -> None:
        """Delete this share of the log, from its beginning, read or not."""
        partition %= len(self._model.ends)
        start, end = self._model.starts[partition], self._model.ends[partition]
        before = start + round((end - start) * share)
        self._count["offsets deleted"] += before - start
        self._model.delete_before(partition, before)
        self._broker.delete_records(self._name, partition, before)

    def truncate(self, partition: int, share: float) -> None:
        """Lose this share of the log, from its end, under a new leader."""
        partition %= len(self._model.ends)
        start, end = self._model.starts[partition], self._model.ends[partition]
        cut = end - round((end - start) * share)
        self._count["offsets cut"] += end - cut
        self._model.truncate(partition, cut)
        self._broker.truncate(self._name, partition, cut)

    def recreate(self, partitions: int) -> None:
        self._count["topics created again"] += 1
        self.create(partitions)

    def delete(self) -> None:
        self._count["topics deleted"] += 1
        self._broker.delete_topic(self._name)
        self._model.begin_topic("", ())

    def add_partition(self, _: int = 0) -> None:
        """Up to three."""
        partition = len(self._model.ends)
        if partition == 3:
            return
        self._count["partitions added"] += 1
        self._model.add_partitions([partition])
        self._broker.add_partitions(self._name, partition + 1)

    def end_transactions(self) -> None:
        """All that are open are committed."""
        for partition in list(self._model.open_since):
            self.end_transaction(partition, commit=True)

    def _begin(self, partitions: int) -> None:
        self._model.begin_topic(self._broker.identity(self._name).topic_id or "", range(partitions))

"""Compares the records that the brokers acknowledged with the rows in PostgreSQL, by plain SQL."""

from collections import Counter
from collections.abc import Collection

from confluent_kafka import KafkaError, Message, Producer

from ingest_pipeline_tests.orchestration.bench import Bench

_VALUE = '{"device_id": "dev-%08d", "temperature": 21.5, "timestamp": "2026-01-01T00:00:00Z"}'
_COUNTERS = "kafka_incarnation, first_offset, next_offset, rows, dead_letters, skipped, absent, lost"


class Acknowledged:
    """Readings for one topic, each with a device id of its own.

    Attributes:
        rows: (partition, offset, device id) of every record that the brokers acknowledged. The offset is None where a
            broker acknowledged a retry of what it had stored already: such an answer has no offset.
    """

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._topic = topic
        self._count = 0
        self.rows: list[tuple[int, int | None, str]] = []
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,  # a retry leaves no second copy in the log
                "request.timeout.ms": 4000,
                "socket.timeout.ms": 5000,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )

    def write(self, count: int, partitions: Collection[int]) -> None:
        """Write this number of records to each partition. Returns after all acknowledgements."""
        for partition in partitions:
            for _ in range(count):
                self._write(partition)
        assert self._producer.flush(120) == 0

    def of(self, *partitions: int) -> int:
        """The number of acknowledged records in these partitions."""
        return sum(partition in partitions for partition, _, _ in self.rows)

    def _write(self, partition: int) -> None:
        self._count += 1
        name = f"dev-{self._count:08d}"

        def delivered(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            offset = message.offset()
            self.rows.append((partition, None if offset is None or offset < 0 else offset, name))

        self._producer.produce(self._topic, _VALUE % self._count, partition=partition, on_delivery=delivered)


def assert_no_loss(location: Bench) -> None:
    """No loss was noted or accepted, and no record was refused."""
    if location.query("select to_regclass('ingest.position')") == [None]:
        return  # nothing has begun
    assert location.query("select * from ingest.loss") == []
    assert location.query("select * from ingest.gap") == []
    assert location.query("select stream, kafka_partition, kafka_offset, reason from ingest.dead_letter") == []


def assert_exactly_once(location: Bench, acknowledged: Acknowledged) -> None:
    """Every acknowledged record is exactly one row, no other row exists, and the counters agree."""
    rows = location.query(
        f"select kafka_partition, kafka_offset, device_id from {location.stream.table} order by 1, 2, 3"
    )
    stored_at = {name: offset for _, offset, name in rows}
    assert rows == sorted(
        (p, stored_at.get(n, -1) if offset is None else offset, n) for p, offset, n in acknowledged.rows
    )
    assert_no_loss(location)
    held = Counter(partition for partition, _, _ in acknowledged.rows)
    positions = location.query(f"select kafka_partition, {_COUNTERS} from ingest.position order by 1")
    assert positions == [(p, 1, 0, held[p], held[p], 0, 0, 0, 0) for p in sorted(held)]

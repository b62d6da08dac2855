"""What Kafka lost before it was read: the stream stands still, says so, and goes on when somebody accepts it."""

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions

from ingest_pipeline.core.drain import VERIFY_SECONDS
from ingest_pipeline.core.errors import Superseded
from ingest_pipeline.core.loss import Acceptance, noted_loss
from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.core.roles import Role
from ingest_pipeline.operations.losses import accept
from ingest_pipeline_tests.orchestration.bench import Bench, failure, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import Record, temperatures
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]
ACCOUNTING = "select bool_and(accounted) from ingest.accounting"
GAPS = "select kafka_partition, kafka_incarnation, from_offset, to_offset, cause from ingest.gap order by id"


def devices(first: int, count: int) -> list[Record]:
    return temperatures(count, partitions=1, first=first)


def stored(bench: Bench) -> list[tuple[int, str]]:
    """(offset, device) of every row in the order of incarnation and offset."""
    return bench.query("select kafka_offset, device_id from temperature order by kafka_incarnation, kafka_offset")


def first_record(bench: Bench) -> int:
    """The first offset that a reader gets."""
    with closing(Consumer({"bootstrap.servers": bench.bootstrap_servers, "group.id": "looking"})) as consumer:
        consumer.assign([TopicPartition(bench.stream.topic, 0, 0)])
        (message,) = consumer.consume(1, 30)
        offset = message.offset()
        assert offset is not None
        return offset


def delete_before(kafka: RealKafka, topic: str, offset: int, partition: int = 0) -> None:
    """What retention does. On return the log starts there."""
    place = TopicPartition(topic, partition, offset)
    for future in kafka.admin.delete_records([place]).values():
        future.result(30)


def recreate(kafka: RealKafka, topic: str, partitions: int = 1) -> None:
    kafka.delete_topic(topic)

    def made() -> bool:
        with suppress(KafkaException):
            kafka.create_topic(topic, partitions)
            return True
        return False

    wait_for("the topic's name to be free", made, every=0.2)


def refused(bench: Bench) -> str:
    """What the tick says, launching nothing."""
    with pytest.raises(Exception) as raised:
        bench.tick()
    failed = raised.value.__cause__ or raised.value
    return str(getattr(failed, "description", failed))


def assert_still(bench: Bench, *words: str) -> None:
    """Every tick repeats it, and a run that is launched all the same reads nothing."""
    before = stored(bench)
    for _ in range(2):
        message = refused(bench)
        assert all(word in message for word in (*words, "ingest accept-loss temperature")), message
    result = bench.by_sensor()
    assert not result.success
    assert all(word in failure(result) for word in words), failure(result)
    assert not bench.by_hand().success
    assert stored(bench) == before


def test_retention_overtook_the_position(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=1)
    bench.produce(devices(0, 10))
    bench.drain()
    bench.produce(devices(10, 10))
    delete_before(kafka_server, bench.stream.topic, 15)
    assert_still(bench, "partition 0: offsets 10 to 14 were deleted before they were read")
    printed = ingest(bench, "accept-loss", "temperature", "--yes")
    assert "offsets 10 to 14 (5) are recorded as lost. Reading continues at 15" in printed
    assert len(bench.tick().run_requests) == 1
    bench.drain()
    assert stored(bench) == [(n, f"dev-{n:04}") for n in (*range(10), *range(15, 20))]
    assert bench.query(GAPS) == [(0, 1, 10, 15, "retention")]
    assert bench.query('select "rows", lost, next_offset from ingest.position') == [(15, 5, 20)]
    assert bench.query(ACCOUNTING) == [True]
    assert "nothing to accept" in ingest(bench, "accept-loss", "temperature", "--yes")


def test_going_on_at_a_place_of_the_operators_choice(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=1)
    bench.produce(devices(0, 10))
    bench.drain()
    bench.produce(devices(10, 10))
    delete_before(kafka_server, bench.stream.topic, 15)
    outside = ingest(bench, "accept-loss", "temperature", "--yes", "--from", "14", code=1)
    assert outside.splitlines()[0] == "Error: partition 0: the log holds offsets 15 to 20, and 14 is outside"
    assert "neither earliest, latest" in ingest(bench, "accept-loss", "temperature", "--from", "soon", code=2)
    ingest(bench, "accept-loss", "temperature", "--from", "18", code=1)  # the question gets no answer
    assert bench.query(GAPS) == []
    ingest(bench, "accept-loss", "temperature", "--yes", "--from", "18", "--partition", "0")
    bench.drain()
    assert [offset for offset, _ in stored(bench)] == [*range(10), 18, 19]
    assert bench.query(GAPS) == [(0, 1, 10, 18, "retention")]


def test_a_topic_created_again_with_fewer_records(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=1)
    bench.produce(devices(0, 10))
    bench.drain()
    recreate(kafka_server, bench.stream.topic)
    bench.produce(devices(100, 3))
    assert_still(bench, "has topic id", "the topic is another one", "Partition 0 is at offset 10")
    ingest(bench, "accept-loss", "temperature", "--yes")
    bench.drain()
    assert stored(bench) == [*((n, f"dev-{n:04}") for n in range(10)), *((n, f"dev-{100 + n:04}") for n in range(3))]
    assert bench.query(GAPS) == [(0, 1, 10, 10, "other topic")]
    assert bench.query("select kafka_incarnation, next_offset, current from ingest.accounting order by 1") == [
        (1, 10, False),
        (2, 3, True),
    ]
    assert bench.query(ACCOUNTING) == [True]


def test_a_topic_created_again_with_more_records_and_other_partitions(
    make_bench: Make, kafka_server: RealKafka
) -> None:
    bench = make_bench(partitions=2)
    bench.produce(temperatures(4))
    bench.drain()
    recreate(kafka_server, bench.stream.topic, partitions=1)
    bench.produce(devices(100, 30))
    assert_still(bench, "has topic id")
    printed = ingest(bench, "accept-loss", "temperature", "--yes")
    assert "partition 1: the topic no longer has the partition. Its position is closed at 2" in printed
    bench.drain()
    assert bench.rows() == 34
    assert bench.positions() == {0: 30}
    assert bench.query(ACCOUNTING) == [True]


def test_a_running_drain_notices_a_topic_created_again(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=1, RUN_IDLE_SECONDS="60")
    bench.produce(devices(0, 5))
    results = []
    run = threading.Thread(target=lambda: results.append(bench.by_sensor()))
    run.start()
    wait_for("rows", lambda: bench.query("select to_regclass('temperature')") != [None] and bench.rows() == 5)
    recreate(kafka_server, bench.stream.topic)
    bench.clock.seconds += VERIFY_SECONDS
    run.join(150)  # Dagster may wait a minute for the processes that copy a run's output
    assert "ingest accept-loss temperature" in failure(results[0])


def test_added_partitions_are_no_loss_and_are_read_from_their_beginning(
    make_bench: Make, kafka_server: RealKafka
) -> None:
    """Although START_FROM says latest: the stream has begun long before, and nobody is asked to restart anything."""
    bench = make_bench(partitions=1, RUN_IDLE_SECONDS="60", START_FROM="latest")
    assert bench.by_hand().success
    bench.produce(devices(0, 5))
    results = []
    run = threading.Thread(target=lambda: results.append(bench.by_sensor()))
    run.start()
    wait_for("rows", lambda: bench.rows() == 5)
    (added,) = kafka_server.admin.create_partitions([NewPartitions(bench.stream.topic, 2)]).values()
    added.result(180)
    kafka_server.wait_for_leaders(bench.stream.topic, partitions=2)
    bench.clock.seconds += VERIFY_SECONDS
    run.join(150)
    assert bench.outcome(results[0].run_id) == ("partitions-added", "5")
    bench.produce([record._replace(partition=1) for record in devices(5, 4)])
    assert len(bench.tick().run_requests) == 1
    assert bench.by_hand().success
    assert bench.positions() == {0: 5, 1: 4}
    assert bench.rows() == 9


def test_a_truncated_log_restarts_at_its_end(make_bench: Make, kafka_server: RealKafka) -> None:
    """A re-created topic that shows no id of its own is told by its end: the ledger's id is taken away for it."""
    bench = make_bench(partitions=1)
    bench.produce(devices(0, 10))
    bench.drain()
    recreate(kafka_server, bench.stream.topic)
    bench.produce(devices(100, 4))
    bench.query("update ingest.position set topic_id = null")
    assert_still(bench, "the log ended at 4, before the next offset 10")
    bench.produce(devices(104, 20))  # it regrows beyond the position: what was noted still holds
    bench.query("update ingest.position set topic_id = null")
    assert_still(bench, "the log ended at 4, before the next offset 10")
    ingest(bench, "accept-loss", "temperature", "--yes", "--from", "earliest")
    bench.drain()
    assert bench.rows() == 34
    assert bench.query(ACCOUNTING) == [True]


def test_what_was_noted_by_mistake_is_dismissed(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=1)
    bench.produce(devices(0, 10))
    bench.drain()
    bench.query("insert into ingest.loss values ('temperature', 0, 1, 10, 0, 4, 'truncated')")
    bench.produce(devices(10, 1))
    assert_still(bench, "the log ended at 4")
    assert "temperature: the loss is forgotten." in ingest(bench, "accept-loss", "temperature", "--dismiss")
    bench.drain()
    assert bench.rows() == 11


def test_another_cluster_of_the_same_address(make_bench: Make) -> None:
    bench = make_bench(partitions=1)
    bench.produce(devices(0, 3))
    bench.drain()
    bench.query("update ingest.position set cluster_id = 'the old one'")
    assert_still(bench, "has cluster id", "its positions belong to the old one")
    assert "no loss is noted, so nothing is forgotten" in ingest(bench, "accept-loss", "temperature", "--dismiss")
    ingest(bench, "accept-loss", "temperature", "--yes", "--from", "latest")
    bench.produce(devices(3, 1))
    bench.drain()
    assert bench.rows() == 4


def test_a_stream_that_reads_a_topic_of_another_name(make_bench: Make, topic: Callable[..., str]) -> None:
    bench = make_bench(partitions=1)
    bench.produce(devices(0, 3))
    bench.drain()
    bench.query("update ingest.position set topic = 'old-name', topic_id = 'old-id'")
    assert_still(bench, "its positions belong to topic old-name")
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
    ingest(bench, "accept-loss", "temperature", "--yes", "--from", hour_ago)
    bench.drain()
    assert bench.rows() == 6
    assert bench.query("select topic from ingest.position") == [bench.stream.topic]


def test_on_data_loss_continue_goes_on_and_records_it(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=1, ON_DATA_LOSS="continue")
    bench.produce(devices(0, 10))
    bench.drain()
    bench.produce(devices(10, 10))
    delete_before(kafka_server, bench.stream.topic, 15)
    assert len(bench.tick().run_requests) == 1
    run_id = bench.drain()
    assert "offsets 10 to 14 were deleted before they were read" in bench.said(run_id)
    recreate(kafka_server, bench.stream.topic)
    assert len(bench.tick().run_requests) == 1, "an empty topic has no lag, but a run has to begin it"
    bench.drain()
    bench.produce(devices(100, 2))
    bench.drain()
    assert bench.rows() == 17
    assert bench.query(GAPS) == [(0, 1, 10, 15, "retention"), (0, 1, 20, 20, "other topic")]
    assert bench.query("select accepted_by from ingest.gap") == ["ON_DATA_LOSS=continue"] * 2
    assert bench.query(ACCOUNTING) == [True]


def test_a_run_that_finds_it_first_notes_it(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=1)
    bench.produce(devices(0, 5))
    bench.drain()
    bench.produce(devices(5, 5))
    delete_before(kafka_server, bench.stream.topic, 7)
    assert "offsets 5 to 6 were deleted" in failure(bench.by_sensor())
    assert bench.query("select cause, next_offset, low from ingest.loss") == [("retention", 5, 7)]
    assert_still(bench, "offsets 5 to 6 were deleted")


def test_transactions_are_no_loss_and_reach_lag_0(make_bench: Make) -> None:
    bench = make_bench(partitions=1)
    settings = {"bootstrap.servers": bench.bootstrap_servers, "transactional.id": bench.stream.topic}
    producer = Producer(settings)
    producer.init_transactions()
    good = devices(0, 1)[0].value
    for commits in (True, False, True, False):
        producer.begin_transaction()
        for _ in range(3):
            producer.produce(bench.stream.topic, good, partition=0)
        producer.flush()
        if commits:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    bench.drain()
    assert bench.query('select next_offset, "rows", absent, lost from ingest.position') == [(16, 6, 10, 0)]
    assert bench.tick().run_requests == []
    assert bench.tick().skip_message == "caught up: lag 0"


def test_compaction_is_no_loss(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=0)
    config = {"cleanup.policy": "compact", "segment.ms": "100", "max.compaction.lag.ms": "100"}
    kafka_server.create_topic(bench.stream.topic, 1, {**config, "min.cleanable.dirty.ratio": "0.001"})
    (good,) = devices(0, 1)
    bench.produce([good._replace(key=b"same", partition=0)] * 50)

    def compacted() -> bool:
        bench.produce([good._replace(key=b"same", partition=0)])  # closes the segment before it
        return first_record(bench) > 0

    wait_for("the log's cleaner", compacted, every=1)
    bench.drain()
    ((next_offset, rows, absent, lost),) = bench.query('select next_offset, "rows", absent, lost from ingest.position')
    assert absent >= 49
    assert (next_offset, lost) == (rows + absent, 0)
    assert bench.rows() == rows
    assert bench.tick().skip_message == "caught up: lag 0"
    kafka_server.delete_topic(bench.stream.topic)


@pytest.mark.role(Role.OPERATOR)
def test_acceptance_is_refused_when_a_position_moved(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = make_bench(partitions=1)
    bench.produce(devices(0, 3))
    bench.drain()
    stale = Acceptance(
        noted_loss(cause="retention", partition=0, incarnation=1, expected=2, low=3, high=3), NextOffset(3)
    )
    identity = bench.clients.topic(bench.stream).identity()
    with pytest.raises(Superseded, match="has moved meanwhile"):
        accept(bench.context, [stale], identity, by="test")
    assert bench.query(GAPS) == []

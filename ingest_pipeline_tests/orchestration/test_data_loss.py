"""What Kafka lost before it was read: the stream stands still, says so, and goes on when somebody accepts it."""

from __future__ import annotations

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
        said = refused(bench)
        assert all(word in said for word in (*words, "ingest accept-loss temperature")), said
    result = bench.by_sensor()
    assert not result.success
    assert all(word in failure(result) for word in words), failure(result)
    assert not bench.by_hand().success
    assert stored(bench) == before


def test_retention_overtook_the_position(bench: Make, kafka_server: RealKafka) -> None:
    here = bench(partitions=1)
    here.produce(devices(0, 10))
    here.drain()
    here.produce(devices(10, 10))
    delete_before(kafka_server, here.stream.topic, 15)
    assert_still(here, "partition 0: offsets 10 to 14 were deleted before they were read")
    printed = ingest(here, "accept-loss", "temperature", "--yes")
    assert "offsets 10 to 14 (5) are recorded as lost. Reading continues at 15" in printed
    assert len(here.tick().run_requests) == 1
    here.drain()
    assert stored(here) == [(n, f"dev-{n:04}") for n in (*range(10), *range(15, 20))]
    assert here.query(GAPS) == [(0, 1, 10, 15, "retention")]
    assert here.query('select "rows", lost, next_offset from ingest.position') == [(15, 5, 20)]
    assert here.query(ACCOUNTING) == [True]
    assert "nothing to accept" in ingest(here, "accept-loss", "temperature", "--yes")


def test_going_on_at_a_place_of_the_operators_choice(bench: Make, kafka_server: RealKafka) -> None:
    here = bench(partitions=1)
    here.produce(devices(0, 10))
    here.drain()
    here.produce(devices(10, 10))
    delete_before(kafka_server, here.stream.topic, 15)
    outside = ingest(here, "accept-loss", "temperature", "--yes", "--from", "14", code=1)
    assert outside.splitlines()[0] == "Error: partition 0: the log holds offsets 15 to 20, and 14 is outside"
    assert "neither earliest, latest" in ingest(here, "accept-loss", "temperature", "--from", "soon", code=2)
    ingest(here, "accept-loss", "temperature", "--from", "18", code=1)  # nobody says yes
    assert here.query(GAPS) == []
    ingest(here, "accept-loss", "temperature", "--yes", "--from", "18", "--partition", "0")
    here.drain()
    assert [offset for offset, _ in stored(here)] == [*range(10), 18, 19]
    assert here.query(GAPS) == [(0, 1, 10, 18, "retention")]


def test_a_topic_created_again_with_fewer_records(bench: Make, kafka_server: RealKafka) -> None:
    here = bench(partitions=1)
    here.produce(devices(0, 10))
    here.drain()
    recreate(kafka_server, here.stream.topic)
    here.produce(devices(100, 3))
    assert_still(here, "has topic id", "the topic is another one", "Partition 0 is at offset 10")
    ingest(here, "accept-loss", "temperature", "--yes")
    here.drain()
    assert stored(here) == [*((n, f"dev-{n:04}") for n in range(10)), *((n, f"dev-{100 + n:04}") for n in range(3))]
    assert here.query(GAPS) == [(0, 1, 10, 10, "other topic")]
    assert here.query("select kafka_incarnation, next_offset, current from ingest.accounting order by 1") == [
        (1, 10, False),
        (2, 3, True),
    ]
    assert here.query(ACCOUNTING) == [True]


def test_a_topic_created_again_with_more_records_and_other_partitions(bench: Make, kafka_server: RealKafka) -> None:
    here = bench(partitions=2)
    here.produce(temperatures(4))
    here.drain()
    recreate(kafka_server, here.stream.topic, partitions=1)
    here.produce(devices(100, 30))
    assert_still(here, "has topic id")
    printed = ingest(here, "accept-loss", "temperature", "--yes")
    assert "partition 1: the topic no longer has the partition. Its position is closed at 2" in printed
    here.drain()
    assert here.rows() == 34
    assert here.positions() == {0: 30}
    assert here.query(ACCOUNTING) == [True]


def test_a_running_drain_notices_a_topic_created_again(bench: Make, kafka_server: RealKafka) -> None:
    here = bench(partitions=1, RUN_IDLE_SECONDS="60")
    here.produce(devices(0, 5))
    results = []
    run = threading.Thread(target=lambda: results.append(here.by_sensor()))
    run.start()
    wait_for("rows", lambda: here.query("select to_regclass('temperature')") != [None] and here.rows() == 5)
    recreate(kafka_server, here.stream.topic)
    here.clock.seconds += VERIFY_SECONDS
    run.join(150)  # Dagster may wait a minute for the processes that copy a run's output
    assert "ingest accept-loss temperature" in failure(results[0])


def test_added_partitions_are_no_loss_and_are_read_from_their_beginning(bench: Make, kafka_server: RealKafka) -> None:
    """Although START_FROM says latest: the stream has begun long before, and nobody is asked to restart anything."""
    here = bench(partitions=1, RUN_IDLE_SECONDS="60", START_FROM="latest")
    assert here.by_hand().success
    here.produce(devices(0, 5))
    results = []
    run = threading.Thread(target=lambda: results.append(here.by_sensor()))
    run.start()
    wait_for("rows", lambda: here.rows() == 5)
    (added,) = kafka_server.admin.create_partitions([NewPartitions(here.stream.topic, 2)]).values()
    added.result(30)
    here.clock.seconds += VERIFY_SECONDS
    run.join(150)
    assert here.outcome(results[0].run_id) == ("partitions-added", "5")
    here.produce([record._replace(partition=1) for record in devices(5, 4)])
    assert len(here.tick().run_requests) == 1
    assert here.by_hand().success
    assert here.positions() == {0: 5, 1: 4}
    assert here.rows() == 9


def test_a_cut_log_begins_anew_where_it_was_cut(bench: Make, kafka_server: RealKafka) -> None:
    """A re-created topic that shows no id of its own is told by its end: the ledger's id is taken away for it."""
    here = bench(partitions=1)
    here.produce(devices(0, 10))
    here.drain()
    recreate(kafka_server, here.stream.topic)
    here.produce(devices(100, 4))
    here.query("update ingest.position set topic_id = null")
    assert_still(here, "the log ended at 4, before the next offset 10")
    here.produce(devices(104, 20))  # it regrows beyond the position: what was noted still holds
    here.query("update ingest.position set topic_id = null")
    assert_still(here, "the log ended at 4, before the next offset 10")
    ingest(here, "accept-loss", "temperature", "--yes", "--from", "earliest")
    here.drain()
    assert here.rows() == 34
    assert here.query(ACCOUNTING) == [True]


def test_what_was_noted_by_mistake_is_dismissed(bench: Make, kafka_server: RealKafka) -> None:
    here = bench(partitions=1)
    here.produce(devices(0, 10))
    here.drain()
    here.query("insert into ingest.loss values ('temperature', 0, 1, 10, 0, 4, 'truncated')")
    here.produce(devices(10, 1))
    assert_still(here, "the log ended at 4")
    ingest(here, "accept-loss", "temperature", "--dismiss")
    here.drain()
    assert here.rows() == 11


def test_another_cluster_of_the_same_address(bench: Make) -> None:
    here = bench(partitions=1)
    here.produce(devices(0, 3))
    here.drain()
    here.query("update ingest.position set cluster_id = 'the old one'")
    assert_still(here, "has cluster id", "its positions belong to the old one")
    ingest(here, "accept-loss", "temperature", "--yes", "--from", "latest")
    here.produce(devices(3, 1))
    here.drain()
    assert here.rows() == 4


def test_a_stream_that_reads_a_topic_of_another_name(bench: Make, topic: Callable[..., str]) -> None:
    here = bench(partitions=1)
    here.produce(devices(0, 3))
    here.drain()
    here.query("update ingest.position set topic = 'old-name', topic_id = 'old-id'")
    assert_still(here, "its positions belong to topic old-name")
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
    ingest(here, "accept-loss", "temperature", "--yes", "--from", hour_ago)
    here.drain()
    assert here.rows() == 6
    assert here.query("select topic from ingest.position") == [here.stream.topic]


def test_on_data_loss_continue_goes_on_and_records_it(bench: Make, kafka_server: RealKafka) -> None:
    here = bench(partitions=1, ON_DATA_LOSS="continue")
    here.produce(devices(0, 10))
    here.drain()
    here.produce(devices(10, 10))
    delete_before(kafka_server, here.stream.topic, 15)
    assert len(here.tick().run_requests) == 1
    run_id = here.drain()
    assert "offsets 10 to 14 were deleted before they were read" in here.said(run_id)
    recreate(kafka_server, here.stream.topic)
    assert len(here.tick().run_requests) == 1, "an empty topic has no lag, but somebody has to begin it anew"
    here.drain()
    here.produce(devices(100, 2))
    here.drain()
    assert here.rows() == 17
    assert here.query(GAPS) == [(0, 1, 10, 15, "retention"), (0, 1, 20, 20, "other topic")]
    assert here.query("select accepted_by from ingest.gap") == ["ON_DATA_LOSS=continue"] * 2
    assert here.query(ACCOUNTING) == [True]


def test_a_run_that_finds_it_first_notes_it(bench: Make, kafka_server: RealKafka) -> None:
    here = bench(partitions=1)
    here.produce(devices(0, 5))
    here.drain()
    here.produce(devices(5, 5))
    delete_before(kafka_server, here.stream.topic, 7)
    assert "offsets 5 to 6 were deleted" in failure(here.by_sensor())
    assert here.query("select cause, next_offset, low from ingest.loss") == [("retention", 5, 7)]
    assert_still(here, "offsets 5 to 6 were deleted")


def test_transactions_are_no_loss_and_reach_lag_0(bench: Make) -> None:
    here = bench(partitions=1)
    settings = {"bootstrap.servers": here.bootstrap_servers, "transactional.id": here.stream.topic}
    producer = Producer(settings)
    producer.init_transactions()
    good = devices(0, 1)[0].value
    for commits in (True, False, True, False):
        producer.begin_transaction()
        for _ in range(3):
            producer.produce(here.stream.topic, good, partition=0)
        producer.flush()
        if commits:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    here.drain()
    assert here.query('select next_offset, "rows", absent, lost from ingest.position') == [(16, 6, 10, 0)]
    assert here.tick().run_requests == []
    assert here.tick().skip_message == "caught up: lag 0"


def test_compaction_is_no_loss(bench: Make, kafka_server: RealKafka) -> None:
    here = bench(partitions=0)
    config = {"cleanup.policy": "compact", "segment.ms": "100", "max.compaction.lag.ms": "100"}
    kafka_server.create_topic(here.stream.topic, 1, {**config, "min.cleanable.dirty.ratio": "0.001"})
    (good,) = devices(0, 1)
    here.produce([good._replace(key=b"same", partition=0)] * 50)

    def compacted() -> bool:
        here.produce([good._replace(key=b"same", partition=0)])  # closes the segment before it
        return first_record(here) > 0

    wait_for("the log's cleaner", compacted, every=1)
    here.drain()
    ((next_offset, rows, absent, lost),) = here.query('select next_offset, "rows", absent, lost from ingest.position')
    assert absent >= 49
    assert (next_offset, lost) == (rows + absent, 0)
    assert here.rows() == rows
    assert here.tick().skip_message == "caught up: lag 0"
    kafka_server.delete_topic(here.stream.topic)


def test_acceptance_is_refused_when_a_position_moved(bench: Make, kafka_server: RealKafka) -> None:
    here = bench(partitions=1)
    here.produce(devices(0, 3))
    here.drain()
    stale = Acceptance(
        noted_loss(cause="retention", partition=0, incarnation=1, expected=2, low=3, high=3), NextOffset(3)
    )
    identity = here.clients.topic(here.stream).identity()
    with pytest.raises(Superseded, match="has moved meanwhile"):
        accept(here.context, [stale], identity, by="test")
    assert here.query(GAPS) == []

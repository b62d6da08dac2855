"""A stream that was read uncommitted is read committed from now on, while a transaction is open."""

from collections.abc import Callable

import pytest
from confluent_kafka import Producer

from ingest_pipeline.orchestration.checks import NO_LOSS
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import temperatures
from ingest_pipeline_tests.orchestration.test_data_loss import ACCOUNTING

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]


def test_what_the_transaction_holds_back_is_no_truncation(make_bench: Make) -> None:
    before = make_bench(partitions=1, KAFKA_ISOLATION_LEVEL="read_uncommitted")
    before.produce(temperatures(4, partitions=1))
    settings = {"transactional.id": before.stream.topic, "transaction.timeout.ms": 600_000}  # a busy machine is slow
    producer = Producer({"bootstrap.servers": before.bootstrap_servers, **settings})
    producer.init_transactions(30)
    producer.begin_transaction()
    for record in temperatures(3, partitions=1, first=4):
        producer.produce(before.stream.topic, record.value, partition=0)
    assert producer.flush(30) == 0
    before.drain()
    assert before.positions() == {0: 7}

    bench = make_bench(streams=before.streams, **{**before.environ, "KAFKA_ISOLATION_LEVEL": "read_committed"})
    assert bench.clients.topic(bench.stream).end_offsets([0])[0].next_offset == 4
    assert bench.tick().skip_message == "caught up: lag 0"
    assert bench.check_results()[NO_LOSS].passed
    assert "nothing to accept" in ingest(bench, "accept-loss", "temperature", "--yes")
    replay = ("replay", "temperature", "--partition", "0", "--from-offset", "0")
    assert "an open transaction holds back the offsets from 4 on" in ingest(bench, *replay, "--to-offset", "7", code=1)
    assert "4 present" in ingest(bench, *replay, "--to-offset", "4")

    producer.commit_transaction(30)
    bench.produce(temperatures(2, partitions=1, first=7))
    wait_for("the end of the transaction", lambda: bench.tick().run_requests)
    bench.drain()
    assert bench.query('select next_offset, "rows", absent, lost from ingest.position') == [(10, 9, 1, 0)]
    assert bench.query("select count(*) from ingest.loss") == [0]
    assert bench.query(ACCOUNTING) == [True]

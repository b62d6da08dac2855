"""Header names outside UTF-8, written by a real client, make a dead letter, and the process survives."""

import multiprocessing

import pytest
from confluent_kafka import Consumer, TopicPartition

from ingest_pipeline.core.dead_letters import HEADERS_UNREADABLE, dead_letter
from ingest_pipeline.core.errors import DatabaseUnavailable, RecordRefused
from ingest_pipeline.core.record_columns import RecordColumns
from ingest_pipeline.local.broker import EmbeddedBroker
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.faults.raw_producer import RawProducer
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import good

TOPIC = "headers"
EACH = 40
"""Python switches to another way of calling a C method after about ten calls."""
REFUSED = RecordRefused("why", stage="decode")


def read_all(bootstrap_servers: str) -> None:
    """Runs in a child process, since the fault would be a crash."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "headers"})
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    messages = consumer.consume(3 * EACH, 30)
    letters = [dead_letter(message, 1, REFUSED, value_limit=100) for message in messages]
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    again = consumer.consume(3 * EACH, 30)
    (headers,), refused, _ = RecordColumns(headers=True).read(again)
    consumer.close()
    assert headers == [[["trace", "eA=="]]] * EACH + [None] * (2 * EACH)
    assert list(refused) == list(range(EACH, 3 * EACH))
    kept = [dead_letter(message, 1, refused[EACH], value_limit=100, headers_read=[None]) for message in again[EACH:]]
    assert {letter.reason for letter in kept} == {"headers cannot be read: a key is not UTF-8"}
    assert [letter.headers for letter in letters[:EACH]] == [[["trace", "eA=="]]] * EACH
    assert [(letter.headers, letter.reason) for letter in letters[EACH:]] == [(None, "why" + HEADERS_UNREADABLE)] * (
        2 * EACH
    )


def test_any_number_of_them_is_survived(embedded_broker: EmbeddedBroker) -> None:
    names = [[b"trace"], [b"\xff"], [b"trace", b"\xff", b"\xfe"]]
    with RawProducer(embedded_broker.bootstrap_servers) as producer:
        for some in names:
            for _ in range(EACH):
                producer.produce(TOPIC, 0, b"v", key=b"k", headers=[(name, b"x") for name in some])
        producer.flush()
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=read_all, args=(embedded_broker.bootstrap_servers,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    process.close()


class Counted(MemoryMessage):
    reads = 0

    def headers(self) -> None:
        self.reads += 1


def test_a_batch_that_is_tried_again_asks_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second answer for the same message would hold NULL pointers."""

    def gone(*_: object) -> None:
        raise DatabaseUnavailable("gone")

    with Bench(database_url).begin() as bench:
        bench.sql("alter table reading add constraint warm check (temperature > 0)")
        message = Counted(0, 0, 0, good("cold", -1.0))
        batch = bench.batch([message])
        with monkeypatch.context() as patch, pytest.raises(DatabaseUnavailable):
            patch.setattr(bench.session._writer, "_recount", gone)
            bench.session.write(batch)
        assert bench.session.recover(batch) is None
        bench.session.write(batch)
        assert bench.letters() == {0: ("check violation (23514), constraint warm", "23514")}
    assert message.reads == 1

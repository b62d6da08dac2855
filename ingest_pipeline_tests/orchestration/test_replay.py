"""Replay and redrive by CLI and by job, on real Kafka and PostgreSQL, while a drain is alive."""

import time
from collections.abc import Callable
from contextlib import closing

import pytest

from ingest_pipeline.cli.progress import LINE_SECONDS
from ingest_pipeline.core.roles import Role
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import Record, temperatures
from ingest_pipeline_tests.orchestration.test_data_loss import delete_before, devices, recreate
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.role(Role.OPERATOR)]
Make = Callable[..., Bench]
LEDGER = "select * from ingest.position"
BROKEN = Record(b'{"broken', 0)


def drained(bench: Bench, *records: Record) -> Bench:
    bench.produce(records)
    bench.drain()
    return bench


def offsets(bench: Bench) -> list[int]:
    return bench.query("select kafka_offset from temperature order by 1")


def test_what_is_missing_is_stored_and_nothing_else_changes(make_bench: Make) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 5), BROKEN, Record(None, 0), *devices(7, 5))
    bench.query("delete from temperature where kafka_offset in (1, 2, 9, 11)")
    bench.query("update temperature set temperature = 99 where kafka_offset = 3")
    with closing(bench.clients.writing_connection("draining")) as connection:
        live = bench.clients.ledger_session(connection, bench.stream)
        assert live.own([0], exact=True) == {}
        owned = bench.query(LEDGER)
        printed = ingest(bench, "replay", "temperature", "--partition", "0", "--from-offset", "1", "--to-offset", "11")
        assert bench.query(LEDGER) == owned
    assert printed.splitlines()[-1] == "3 stored, 5 present, 0 absent, 1 dead, 1 skipped, 0 refused"
    assert offsets(bench) == [0, 1, 2, 3, 4, 7, 8, 9, 10]
    assert bench.query("select temperature from temperature where kafka_offset = 3") == [99]
    again = ingest(bench, "replay", "temperature", "--partition", "0", "--from-offset", "0", "--to-offset", "999")
    assert again.splitlines()[-1] == "1 stored, 9 present, 0 absent, 1 dead, 1 skipped, 0 refused"


def test_progress_is_printed_on_the_way(make_bench: Make) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 5), BROKEN)

    def decode_later(decode: Callable[[bytes], object], value: bytes) -> object:
        bench.clock.seconds += LINE_SECONDS
        return decode(value)

    bench.clients.changes["decoder"]["decode"] = decode_later
    words = ("replay", "temperature", "--partition", "0", "--from-offset", "0", "--to-offset", "6")
    assert "replaying temperature: 6 of 6, " in ingest(bench, *words, clients=bench.clients)
    words = ("dead-letters", "redrive", "temperature")
    assert "redriving temperature: 1 of 1, " in ingest(bench, *words, clients=bench.clients)


def test_a_replay_by_time_takes_all_partitions(make_bench: Make) -> None:
    bench = drained(make_bench(partitions=2), *temperatures(10))
    bench.query("delete from temperature")
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 3600))
    printed = ingest(bench, "replay", "temperature", "--from-time", "2020-01-01", "--to-time", soon)
    assert printed.splitlines()[-1].startswith("10 stored, 0 present")
    nothing = ingest(bench, "replay", "temperature", "--from-time", "2020-01-01", "--to-time", "2020-01-02", code=1)
    assert "nothing of that range has been ingested" in nothing


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from-offset", "0", "--to-offset", "3"], "offsets belong to one partition"),
        (["--partition", "0", "--from-offset", "0"], "a first and a last offset, or a first and a last time"),
        (
            ["--partition", "0", "--from-offset", "3", "--to-offset", "0"],
            "the range is empty or reversed: it begins at 3 and ends before 0",
        ),
        (["--partition", "0", "--from-offset", "3", "--to-offset", "3"], "the range is empty or reversed"),
        (
            ["--from-time", "2026-01-02", "--to-time", "2026-01-01"],
            "reversed: it begins at 2026-01-02 00:00:00+00:00 and ends before 2026-01-01 00:00:00+00:00",
        ),
        (["--partition", "9", "--from-offset", "0", "--to-offset", "3"], "no position for partition 9"),
        (["--partition", "0", "--from-offset", "30", "--to-offset", "50"], "nothing of that range has been ingested"),
    ],
)
def test_a_range_that_cannot_be_is_one_line_and_a_hint(make_bench: Make, words: list[str], said: str) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 5))
    printed = ingest(bench, "replay", "temperature", *words, code=1)
    error, hint = printed.splitlines()
    assert said in error
    assert hint.startswith("Hint: `ingest replay --help`")


def test_a_range_that_kafka_no_longer_holds(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 10))
    delete_before(kafka_server, bench.stream.topic, 6)
    words = ("replay", "temperature", "--partition", "0", "--to-offset", "8", "--from-offset")
    printed = ingest(bench, *words, "3", code=1)
    assert "Kafka holds offsets 6 to 9, and offset 3 is gone. Replay from offset 6" in printed
    by_time = ("replay", "temperature", "--from-time", "2020-01-01", "--to-time", "2100-01-01")
    assert "Kafka holds offsets 6 to 9, and offset 5 is gone" in ingest(bench, *by_time, code=1), (
        "it may be of that time"
    )
    assert "0 stored, 2 present" in ingest(bench, *words, "6")


def test_what_was_left_out_of_a_new_topic_can_be_replayed(make_bench: Make, kafka_server: RealKafka) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 5))
    recreate(kafka_server, bench.stream.topic)
    bench.produce(devices(100, 5))
    ingest(bench, "accept-loss", "temperature", "--yes", "--from", "2")
    bench.drain()
    gaps = "select kafka_incarnation, from_offset, to_offset from ingest.gap order by 1"
    assert bench.query(gaps) == [(1, 5, 5), (2, 0, 2)]
    assert bench.query("select bool_and(accounted) from ingest.accounting") == [True]
    words = ("replay", "temperature", "--partition", "0", "--from-offset", "0", "--to-offset", "5")
    assert "2 stored, 3 present" in ingest(bench, *words)
    assert bench.query("select kafka_incarnation, count(*) from temperature group by 1 order by 1") == [(1, 5), (2, 5)]


def test_a_letter_cut_short_is_fetched_again(make_bench: Make) -> None:
    long = b'{"device_id": "%s", "temperature": 20, "timestamp": "2026-01-01T00:00:00Z"}' % (b"x" * 3000)
    bench = drained(make_bench(partitions=1, DEAD_LETTER_MAX_BYTES="1024"), *devices(0, 1))
    bench.query("alter table temperature add constraint short check (length(device_id) < 100)")
    drained(bench, Record(long, 0), BROKEN)
    printed = ingest(bench, "dead-letters", "redrive", "temperature")
    assert "1 refused again, 1 cut short and not tried" in printed
    (command,) = [line.split() for line in printed.splitlines() if "ingest replay" in line]
    assert command[1:] == ["replay", "temperature", "--partition", "0", "--from-offset", "1", "--to-offset", "2"]
    assert "0 stored, 0 present, 0 absent, 1 dead" in ingest(bench, *command[1:]), "the table refuses it still"
    bench.query("alter table temperature drop constraint short")
    assert "1 stored, 0 present, 0 absent, 0 dead" in ingest(bench, *command[1:])
    assert bench.query("select status from ingest.dead_letter order by kafka_offset") == ["redriven", "open"]
    assert bench.query("select length(device_id) from temperature where kafka_offset = 1") == [3000]
    assert "0 stored, 1 present" in ingest(bench, *command[1:])


def test_rows_that_the_database_refuses_are_counted_and_their_neighbours_stored(make_bench: Make) -> None:
    bench = drained(make_bench(partitions=1), *devices(0, 300))
    bench.query("delete from temperature")
    bench.query("alter table temperature add check (device_id not in ('dev-0007', 'dev-0123'))")
    printed = ingest(bench, "replay", "temperature", "--partition", "0", "--from-offset", "0", "--to-offset", "300")
    assert printed.splitlines()[-1] == "298 stored, 0 present, 0 absent, 0 dead, 0 skipped, 2 refused"
    assert bench.rows() == 298

"""Too many refused records: the run stops, the sensor backs off and says why, an operator lets them pass."""

from collections.abc import Callable

import pytest

from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.orchestration.bench import Bench, failure
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import Record, temperatures, with_broken

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]
NO_TIME = Record(b'{"device_id": "a", "temperature": 1}', 0)
WARM = Record(b'{"device_id": "a", "temperature": 99, "timestamp": "2026-01-01T00:00:00Z"}', 0)
OPEN = "select count(*) from ingest.dead_letter where status = 'open'"
COUNTERS = 'select next_offset, "rows", dead_letters, updated_at from ingest.position'


def started(bench: Bench) -> Bench:
    bench.produce(temperatures(4))
    bench.drain()
    return bench


def test_a_wrong_deployment_drains_nothing_into_dead_letters(make_bench: Make) -> None:
    bench = started(make_bench())
    before = bench.positions()
    bench.produce([NO_TIME] * 60 + [Record(b"no JSON", 0)] * 41)
    result = bench.by_sensor(**{tags.DEFINITION: definition(bench)})
    message = failure(result)
    assert "101 records in a row were refused: 60x Object missing required field" in message
    assert "41x JSON is malformed" in message
    assert "partition 0 offsets 2 to 102" in message
    assert "ingest dead-letters allow temperature --count N" in message
    assert bench.positions() == before
    assert bench.query(OPEN) == [0]
    skipped = bench.tick().skip_message
    assert skipped is not None
    assert "backing off: the last 1 run failed without progress (DeadLetterLimit)" in skipped


def test_peek_shows_what_waits_and_moves_nothing(make_bench: Make) -> None:
    stopped = started(make_bench())
    stopped.produce([NO_TIME] * 60 + [Record(b"no JSON", 0)] * 41 + temperatures(3) + [Record(None, 1)])
    assert not stopped.by_sensor().success
    counters = stopped.query(COUNTERS)
    topic, group = stopped.clients.topic(stopped.stream), stopped.clients.group_id(stopped.stream)
    offsets = topic.group_offsets(group)
    printed = ingest(stopped, "dead-letters", "peek", "temperature", "--limit", "61").splitlines()
    assert printed[0] == "101 of the next 105 records of temperature would be refused"
    assert printed[1] == "partition 0 offset 2  decode  Object missing required field `timestamp`"
    assert printed[61].startswith("partition 0 offset 62  decode  JSON is malformed")
    assert printed[62] == "… and 40 more"
    assert stopped.query(COUNTERS) == counters
    assert topic.group_offsets(group) == offsets
    few = ingest(stopped, "dead-letters", "peek", "temperature", "-n", "5").splitlines()
    assert few[0] == "5 of the next 7 records of temperature would be refused"


def definition(bench: Bench) -> str:
    return tags.definition_of(bench.stream, bench.settings)


def test_allow_lets_a_burst_pass_once(make_bench: Make) -> None:
    bench = started(make_bench())
    bench.produce([NO_TIME] * 150)
    assert not bench.by_sensor(**{tags.DEFINITION: definition(bench)}).success
    assert bench.tick().run_requests == []
    printed = ingest(bench, "dead-letters", "allow", "temperature", "--count", "150")
    assert "the next 150 dead letters of temperature do not count" in printed
    assert len(bench.tick().run_requests) == 1, "an operator has acted: no backing off"
    bench.drain()
    assert bench.query(OPEN) == [150]
    bench.produce([NO_TIME] * 101)
    assert not bench.by_sensor().success
    assert bench.query(OPEN) == [150]


def test_a_stream_with_few_records_trips_it_too(make_bench: Make) -> None:
    bench = started(make_bench(DEAD_LETTER_MAX_CONSECUTIVE="5"))
    for _ in range(5):
        bench.produce([NO_TIME])
        bench.drain()
    bench.produce([NO_TIME])
    assert "6 records in a row were refused" in failure(bench.by_sensor())
    ingest(bench, "dead-letters", "discard", "temperature", "--yes")
    bench.drain()
    assert bench.query(OPEN) == [1]


def test_it_is_looked_at_while_isolating(make_bench: Make) -> None:
    """All rows of a large batch are refused by the table: the run stops at the 101st, not at the last."""
    bench = started(make_bench(BATCH_SIZE="5000"))
    bench.query("alter table temperature add constraint warm check (temperature < 20)  not valid")
    bench.query("create sequence tries")
    bench.query(
        "create function counted() returns trigger language plpgsql as"
        " $$ begin perform nextval('tries'); return new; end $$"
    )
    bench.query("create trigger counted before insert on temperature for each row execute function counted()")
    bench.produce(temperatures(5000, partitions=1))
    message = failure(bench.by_sensor())
    assert "101 records in a row were refused: 101x check violation (23514), constraint warm" in message
    assert bench.query("select last_value < 1000 from tries") == [True]
    assert bench.query(OPEN) == [0]


# --- the share of the last thousand: refused ones among good ones, never two in a row -------------------------------


def tenth(count: int, refused: Record) -> list[Record]:
    """Good records, each tenth replaced."""
    good = temperatures(count, partitions=1)
    return [refused if number % 10 == 9 else record for number, record in enumerate(good)]


@pytest.mark.parametrize(
    ("refused", "reason"),
    [(Record(b"no JSON", 0), "JSON is malformed"), (WARM, "check violation (23514), constraint cold")],
    ids=["decoder", "table"],
)
def test_one_in_ten_passes_and_one_more_stops_the_run_and_nothing_of_its_batch_is_committed(
    make_bench: Make, refused: Record, reason: str
) -> None:
    bench = make_bench(partitions=1, BATCH_SIZE="500", RECORDS_PER_COMMIT="1", BATCH_TIMEOUT="30")
    bench.drain()
    bench.query("alter table temperature add constraint cold check (temperature < 50)")
    for batches in (2, 1):
        bench.produce(tenth(500 * batches, refused))
        bench.drain()
    assert (bench.rows(), bench.query(OPEN)) == (1350, [150])
    before = bench.query(COUNTERS)
    records = tenth(500, refused)
    records[495] = refused
    bench.produce(records)
    result = bench.by_sensor()
    assert bench.outcome(result.run_id) == ("failed:DeadLetterLimit", "0")
    message = failure(result)
    assert f"101 of the last 1,000 records were refused: 101x {reason}" in message
    assert "partition 0 offsets 999 to 1995" in message
    assert bench.query(COUNTERS) == before
    assert (bench.rows(), bench.query(OPEN)) == (1350, [150])
    ingest(bench, "dead-letters", "allow", "temperature", "--count", "1")
    bench.drain()
    assert (bench.rows(), bench.query(OPEN)) == (1799, [201])


def test_the_share_is_of_a_thousand_however_few_have_come(make_bench: Make) -> None:
    bench = make_bench(partitions=1, DEAD_LETTER_MAX_RATIO="0.02")
    bench.produce(with_broken(temperatures(40, partitions=1), 2))
    bench.drain()
    before = bench.query(COUNTERS)
    bench.produce([NO_TIME])
    assert "21 of the last 1,000 records were refused" in failure(bench.by_sensor())
    assert bench.query(COUNTERS) == before
    assert (bench.rows(), bench.query(OPEN)) == (20, [20])

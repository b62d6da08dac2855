"""A renamed stream that keeps its table does not store its rows a second time."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingest_pipeline.core.errors import LedgerConflict
from ingest_pipeline.core.record import NextOffset, TopicIdentity
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres.ledgers import PostgresLedgers
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import IDENTITY, READING, good

RENAMED = Stream("measurement", READING.event, topic=READING.topic, table=READING.table)
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
BEGINNING = {0: NextOffset(0)}


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    with Bench(database_url) as made:
        made.begin().write([good(), good(), b"broken", good()])
        made.session.connection.close()
        yield made


@pytest.fixture
def renamed(bench: Bench) -> Iterator[Bench]:
    with Bench(bench.url, RENAMED) as made:
        made.ledger.prepare()
        yield made


def test_a_renamed_stream_does_not_begin_and_names_its_old_name(bench: Bench, renamed: Bench) -> None:
    with pytest.raises(LedgerConflict, match=r"positions of stream reading \(partition 0, offsets 0 to 3\)") as caught:
        renamed.ledger.begin(IDENTITY, BEGINNING, first=True)
    assert "\n" not in caught.value.message
    assert bench.sql("SELECT DISTINCT stream FROM ingest.position") == ["reading"]


def test_a_stream_renamed_in_the_ledger_as_documented_drains_on(bench: Bench, renamed: Bench) -> None:
    (script,) = re.findall(r"^    BEGIN;\n(?:    .*\n)+?    COMMIT;\n", OPERATIONS.read_text(), re.MULTILINE)
    PostgresLedgers(renamed.database, [renamed.stream]).note_ticks([renamed.stream.name])
    for statement in script.replace("'old'", "'reading'").replace("'new'", "'measurement'").split(";"):
        if statement.strip():
            bench.sql(statement)
    tables = bench.sql(
        """SELECT c.table_name FROM information_schema.columns c JOIN information_schema.tables t
           USING (table_schema, table_name)
           WHERE c.table_schema = 'ingest' AND c.column_name = 'stream' AND t.table_type = 'BASE TABLE'"""
    )
    for table in tables:
        assert bench.sql(f"SELECT count(*) FROM ingest.{table} WHERE stream = 'reading'") == [0], table
    assert renamed.ledger.begin(IDENTITY, BEGINNING, first=True).keys() == {0}
    renamed.write([good()])
    assert bench.offsets() == [0, 1, 3, 4]


@pytest.mark.parametrize("identity", [replace(IDENTITY, topic_id="another"), TopicIdentity("elsewhere", None, 2)])
def test_a_re_created_topic_and_another_cluster_are_other_records(renamed: Bench, identity: TopicIdentity) -> None:
    assert renamed.ledger.begin(identity, BEGINNING, first=True)


def test_the_closed_positions_of_the_old_name_count(bench: Bench, renamed: Bench) -> None:
    bench.sql(
        """INSERT INTO ingest.past_position (stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id,
               first_offset, next_offset, "rows", dead_letters, skipped, absent, lost, updated_at)
           SELECT stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id, first_offset, next_offset,
               "rows", dead_letters, skipped, absent, lost, updated_at FROM ingest.position"""
    )
    bench.sql("DELETE FROM ingest.position")
    with pytest.raises(LedgerConflict):
        renamed.ledger.begin(IDENTITY, BEGINNING, first=True)


@pytest.mark.parametrize(
    "stream",
    [
        Stream("measurement", READING.event, topic=READING.topic, table="another"),
        Stream("measurement", READING.event, topic="another", table=READING.table),
    ],
    ids=["one-topic-two-tables", "two-topics-one-table"],
)
def test_streams_that_share_a_topic_or_a_table_begin(bench: Bench, stream: Stream) -> None:
    with Bench(bench.url, stream) as second:
        second.ledger.prepare()
        assert second.ledger.begin(IDENTITY, BEGINNING, first=True)

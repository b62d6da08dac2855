"""With many settled dead letters, statements read only open letters, and old settled letters are deleted."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import event

from ingest_pipeline.cli.main import main
from ingest_pipeline.core.dead_letter_limit import LetterLimits, LetterWindow
from ingest_pipeline.core.ledger import LetterFilter
from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.postgres import schema, table_reads
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.letter_retention import SettledLetters
from ingest_pipeline.postgres.schema import downgrade
from ingest_pipeline.postgres.session import rebuilt_window
from ingest_pipeline.postgres.statements import Statements
from ingest_pipeline_tests.declared import declare
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import IDENTITY, READING

ALL = LetterFilter()
MANY, WAITING = 60_000, 40
PARTITIONS = 2
ACCOUNTED = "SELECT bool_and(accounted) FROM ingest.accounting"
SETTLED = "SELECT sum(redriven)::int, sum(discarded)::int, sum(purged)::int FROM ingest.settled_letters"


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    with Bench(database_url) as made:
        made.ledger.prepare()
        assert made.ledger.begin(IDENTITY, dict.fromkeys(range(PARTITIONS), NextOffset(0)), first=True)
        yield made


def refuse(bench: Bench, count: int, *, start: int = 0) -> None:
    """Open letters after `start` letters, spread over the partitions, and positions that have passed them."""
    bench.sql(
        """INSERT INTO ingest.dead_letter (stream, topic, kafka_incarnation, kafka_partition, kafka_offset, value,
               value_bytes, value_sha256, truncated, stage, reason, run_id)
           SELECT 'reading', 'reading', 1, n %% %s, n / %s, 'x', 1, sha256('x'), false, 'decode',
                  'reason ' || n %% 3, 'run'
           FROM generate_series(%s::int, %s::int) n""",
        PARTITIONS,
        PARTITIONS,
        start,
        start + count - 1,
    )
    bench.sql(
        """UPDATE ingest.position p SET next_offset = d.letters, dead_letters = d.letters
           FROM (SELECT kafka_partition, count(*) AS letters FROM ingest.dead_letter GROUP BY 1) d
           WHERE d.kafka_partition = p.kafka_partition"""
    )


def settle(bench: Bench, *, days_ago: int, where: str = "status = 'open'", status: str = "redriven") -> None:
    bench.sql(
        f"UPDATE ingest.dead_letter SET status = %s, resolved_at = now() - %s * interval '1 day' WHERE {where}",
        status,
        days_ago,
    )


def letters_read(plan: dict[str, Any]) -> float:
    """Rows of dead_letter that the plan's scans read, discarded rows and index entries included."""
    rows = sum(letters_read(part) for part in plan.get("Plans", ()))
    if plan.get("Relation Name") == "dead_letter":
        removed = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        rows += (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return rows


def questions(bench: Bench) -> list[tuple[str, Any]]:
    """The statements about letters of ticks, reports, status, metrics, checks and starting runs."""
    asked: list[tuple[str, Any]] = []

    @event.listens_for(bench.database.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:
        if statement.lstrip().startswith("SELECT") and "ingest" in statement:
            asked.append((statement, parameters))

    letters, sql = DeadLetters(bench.database, READING), Statements(READING, bench.database.schemas)
    bench.ledger.snapshot()
    bench.ledger.accounting()
    bench.ledger.open_letters()
    letters.top_reasons(3)
    letters.count_by_reason(ALL)
    letters.page(ALL)
    letters.how_to_fetch(ALL)
    bench.ledger.row_count()
    table_reads.newest_timestamps(bench.database, READING)
    table_reads.rows_per_second(bench.database, READING)
    with bench.database.connect("starting a run") as connection:
        rebuilt_window(connection, sql, LetterWindow("reading", LetterLimits(0.1, 100)), range(PARTITIONS))
    event.remove(bench.database.engine, "before_cursor_execute", note)
    return asked


def test_questions_read_the_open_letters_and_not_the_settled_ones(bench: Bench) -> None:
    refuse(bench, MANY)
    settle(bench, days_ago=1)
    refuse(bench, WAITING, start=MANY)
    bench.sql("ANALYZE ingest.dead_letter")
    asked = questions(bench)
    assert sum("dead_letter" in statement or "accounting" in statement for statement, _ in asked) >= 8
    with psycopg.connect(bench.url) as connection:
        for statement, parameters in asked:
            explained = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).fetchone()
            assert explained is not None
            (plan,) = explained[0] if isinstance(explained[0], list) else json.loads(explained[0])
            assert letters_read(plan["Plan"]) <= 4 * WAITING, statement
    assert sum(row.letters for row in bench.ledger.open_letters()) == WAITING
    assert bench.ledger.row_count() == MANY
    assert bench.sql(ACCOUNTED) == [True]


def test_top_reasons_are_those_of_the_newest_letters(bench: Bench) -> None:
    refuse(bench, 30)
    bench.sql("UPDATE ingest.dead_letter SET reason = 'new' WHERE id > 22")
    reasons = DeadLetters(bench.database, READING).top_reasons(1, newest=10)
    assert [(row.reason, row.letters) for row in reasons] == [("new", 8)]


class TestCounters:
    def test_a_letter_that_is_settled_or_opened_again_by_hand_is_counted(self, bench: Bench) -> None:
        refuse(bench, 10)
        settle(bench, days_ago=0, where="id <= 4")
        settle(bench, days_ago=0, where="id IN (5, 6)", status="discarded")
        assert bench.sql(SETTLED) == [(4, 2, 0)]
        settle(bench, days_ago=0, where="id IN (4, 5)", status="open")
        settle(bench, days_ago=0, where="id = 3", status="discarded")
        assert bench.sql(SETTLED) == [(2, 2, 0)]
        bench.sql("UPDATE ingest.dead_letter SET attempts = attempts + 1")
        assert bench.sql(SETTLED) == [(2, 2, 0)]
        assert bench.sql(ACCOUNTED) == [True]

    def test_an_open_letter_that_is_gone_is_missed(self, bench: Bench) -> None:
        refuse(bench, 10)
        settle(bench, days_ago=0, where="id <= 4")
        bench.sql("DELETE FROM ingest.dead_letter WHERE id = 9")
        assert bench.sql(ACCOUNTED) == [False]

    @pytest.mark.empty_database
    def test_a_ledger_of_version_4_is_counted_once(self, bench: Bench) -> None:
        refuse(bench, 10)
        settle(bench, days_ago=0, where="id <= 2")
        downgrade(bench.database, "0004")
        settle(bench, days_ago=0, where="id IN (3, 4, 5)", status="discarded")
        assert bench.sql(ACCOUNTED) == [True]
        schema.migrate(bench.database, [READING])
        assert bench.sql(SETTLED) == [(2, 3, 0)]
        assert bench.sql(ACCOUNTED) == [True]

    def test_many_are_discarded_in_bounded_transactions(self, bench: Bench) -> None:
        refuse(bench, 25)
        letters = DeadLetters(bench.database, READING, closed_chunk=10)
        told: list[int] = []
        assert letters.discard(LetterFilter(reason="reason 1"), told.append) == 8
        assert letters.discard(ALL, told.append) == 17
        assert told == [8, 10, 17]
        assert bench.sql(SETTLED) == [(0, 25, 0)]
        assert bench.sql("SELECT count(DISTINCT resolved_at) FROM ingest.dead_letter") == [3]

    def test_letters_that_come_while_others_are_discarded_stay_open(self, bench: Bench) -> None:
        refuse(bench, 10)
        letters = DeadLetters(bench.database, READING, closed_chunk=5)
        late = iter([10])
        assert letters.discard(ALL, lambda _: [refuse(bench, 2, start=offset) for offset in late]) == 10  # type: ignore[arg-type,return-value]
        assert bench.sql("SELECT count(*) FROM ingest.dead_letter WHERE status = 'open'") == [2]


class TestPurge:
    @pytest.fixture
    def settled(self, bench: Bench) -> SettledLetters:
        """30 letters: ids 1 to 9 settled 40 days ago, 10 to 15 yesterday, and the others open."""
        refuse(bench, 30)
        bench.sql("UPDATE ingest.dead_letter SET failed_at = now() - interval '90 days'")
        settle(bench, days_ago=40, where="id <= 5")
        settle(bench, days_ago=40, where="id BETWEEN 6 AND 8", status="discarded")
        bench.sql("UPDATE ingest.dead_letter SET status = 'discarded' WHERE id = 9")
        settle(bench, days_ago=1, where="id BETWEEN 10 AND 15")
        return SettledLetters(bench.database, READING)

    def test_only_what_was_settled_long_ago_goes(self, bench: Bench, settled: SettledLetters) -> None:
        assert settled.expired(30) == 9
        assert settled.purge(30) == 9
        assert bench.sql("SELECT min(id), count(*) FROM ingest.dead_letter") == [(10, 21)]
        assert bench.sql(SETTLED) == [(11, 4, 9)]
        assert bench.sql(ACCOUNTED) == [True]
        assert settled.missing() == 0
        assert settled.purge(30) == 0

    def test_an_open_letter_is_never_purged(self, bench: Bench, settled: SettledLetters) -> None:
        assert settled.purge(0) == 15
        assert bench.sql("SELECT status, count(*) FROM ingest.dead_letter GROUP BY 1") == [("open", 15)]

    def test_letters_of_another_stream_stay(self, bench: Bench, settled: SettledLetters) -> None:
        bench.sql("UPDATE ingest.dead_letter SET stream = 'another' WHERE id <= 3")
        assert settled.purge(0) == 12
        assert bench.sql("SELECT count(*) FROM ingest.dead_letter WHERE stream = 'another'") == [3]

    def test_one_transaction_takes_so_many_letters(self, bench: Bench, settled: SettledLetters) -> None:
        told: list[int] = []
        assert SettledLetters(bench.database, READING, chunk=4).purge(30, told.append) == 9
        assert told == [4, 8, 9]

    def test_one_transaction_takes_so_many_bytes(self, bench: Bench, settled: SettledLetters) -> None:
        bench.sql("UPDATE ingest.dead_letter SET value = convert_to(repeat('x', 600), 'UTF8')")
        told: list[int] = []
        assert SettledLetters(bench.database, READING, chunk_bytes=1500).purge(30, told.append) == 9
        assert told == [2, 4, 6, 8, 9]

    def test_a_settled_letter_that_nothing_purged_is_missed(self, bench: Bench, settled: SettledLetters) -> None:
        bench.sql("DELETE FROM ingest.dead_letter WHERE id = 12")
        assert settled.missing() == 1

    def test_the_command(self, bench: Bench, settled: SettledLetters, monkeypatch: pytest.MonkeyPatch) -> None:
        declare(monkeypatch, [READING])

        def purge(*words: str, **environ: str) -> str:
            environ["DATABASE_URL"] = bench.url
            result = CliRunner().invoke(main, ["dead-letters", "purge", "reading", "--yes", *words], env=environ)
            assert result.exit_code == 0, result.output
            return result.stdout

        assert purge(SETTLED_LETTER_RETENTION_DAYS="50") == "purged 1\n", "the one whose time nobody wrote down"
        assert purge() == "purged 8\n"
        assert purge() == "nothing purged\n"
        assert purge("--days", "0") == "purged 6\n"

"""`ingest migrate` on large or busy tables: no statement is cut short, and a message names the lock's holder."""

import psycopg
import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres import schema
from ingest_pipeline.postgres.session_settings import QUESTION
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import Reading

pytestmark = pytest.mark.empty_database

SLOW_ALTER = """
    CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.5); END';
    CREATE EVENT TRIGGER slow ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION slow()"""


class Wider(Reading):
    place: str | None = None


WIDER = Stream("reading", Wider)


@pytest.fixture(autouse=True)
def short_lock_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(QUESTION, "lock_timeout", "500ms")


@pytest.mark.usefixtures("queries_end_after_a_second")
def test_a_statement_may_take_longer_than_a_question(bench: Bench) -> None:
    bench.sql(SLOW_ALTER)
    assert schema.migrate(bench.database, [WIDER]) == ["added column public.reading.place"]


def test_the_session_that_holds_the_table_is_named(bench: Bench) -> None:
    with psycopg.connect(bench.url, application_name="a report") as other:
        other.execute("SELECT count(*) FROM reading")
        with pytest.raises(DatabaseUnavailable, match="55P03") as caught:
            schema.migrate(bench.database, [WIDER])
        pid = other.info.backend_pid
    assert f"Held by session {pid} (a report, role postgres, in a transaction for " in caught.value.message
    assert "reading" in caught.value.message
    assert "\n" not in caught.value.message
    assert schema.migrate(bench.database, [WIDER]) == ["added column public.reading.place"]


def test_another_migration_is_named(bench: Bench) -> None:
    with psycopg.connect(bench.url, application_name="ingest") as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('ingest migrate', 0))")
        with pytest.raises(DatabaseUnavailable, match=r"\(ingest, role .*: the lock of ingest migrate"):
            schema.migrate(bench.database, [WIDER])


def test_sessions_that_hold_other_tables_are_not_named(bench: Bench) -> None:
    bench.sql("CREATE TABLE theirs (n int)")
    with psycopg.connect(bench.url) as other, psycopg.connect(bench.url) as holder:
        other.execute("SELECT count(*) FROM theirs")
        holder.execute("LOCK TABLE reading")
        with pytest.raises(DatabaseUnavailable) as caught:
            schema.migrate(bench.database, [WIDER])
        pids = other.info.backend_pid, holder.info.backend_pid
    assert [f"session {pid} " in caught.value.message for pid in pids] == [False, True]

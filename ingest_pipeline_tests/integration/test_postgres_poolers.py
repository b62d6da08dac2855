"""PgBouncer in front of PostgreSQL: session mode serves a run, and the other modes are refused by name."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable
from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.postgres import server_checks
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.postgres.table_reads import newest
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import IDENTITY, READING, good
from ingest_pipeline_tests.servers.pgbouncer import PgBouncer
from ingest_pipeline_tests.waiting import wait_for

pytestmark = pytest.mark.empty_database

Start = Callable[..., PgBouncer]


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_run_and_the_check_refuse_a_pool_that_moves_its_clients(pgbouncer: Start, mode: str) -> None:
    database = Database(sqlalchemy_url(pgbouncer(mode).url))
    with pytest.raises(DatabaseUnavailable, match="a pool in session mode"):
        database.writing_connection("run")
    if mode == "transaction":
        (problem,) = server_checks.problems(database)
        assert problem[0] == "pooler"
        assert "transaction or statement mode" in problem[1]
    else:
        with pytest.raises(DatabaseUnavailable, match="a pool in session mode"):
            server_checks.problems(database)
    database.dispose()


def test_a_refused_run_leaves_no_lock_and_no_setting_in_the_pool(pgbouncer: Start, database_url: str) -> None:
    database = Database(sqlalchemy_url(pgbouncer("transaction", pool_size=1).url))
    with pytest.raises(DatabaseUnavailable):
        database.writing_connection("run")
    with database.connect("looking") as connection:
        timeout = connection.exec_driver_sql("SHOW idle_session_timeout").scalar()
        locks = connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").scalar()
    assert (timeout, locks) == ("0", 0)
    database.dispose()


def test_a_run_writes_through_a_pool_in_session_mode(pgbouncer: Start, database_url: str) -> None:
    with Bench(pgbouncer("session").url, own_rights=True) as bench:
        assert server_checks.problems(bench.database) == []
        bench.begin()
        bench.write([good(), good()])
        assert bench.offsets() == [0, 1]
        assert bench.ledger.owners([0]).holders[0].run_id == "run"
        bench.session.connection.close()
        wait_for("the pool to give the lock back", lambda: bench.ledger.owners([0]).holders == {})
        with Bench(database_url) as direct:
            assert direct.database.pooler_keeps_sessions() is None
            assert direct.new_session("next").own([0], exact=True) == {}


def test_questions_and_operators_acts_work_in_transaction_mode(pgbouncer: Start) -> None:
    """Many clients share one session, each with more statements than psycopg runs before it prepares one."""
    url = pgbouncer("transaction", pool_size=1).url
    databases = [Database(sqlalchemy_url(url)) for _ in range(3)]
    ledgers = [PostgresLedger(database, READING) for database in databases]
    ledgers[0].prepare()
    assert ledgers[0].begin(IDENTITY, {0: NextOffset(0)}, first=True)

    def ask(number: int) -> None:
        for _ in range(12):
            ledgers[number].pause("why", "ann")
            assert ledgers[number].snapshot().state.paused
            assert ledgers[number].positions()[0].next_offset == 0
            assert newest(databases[number], READING, 5)[1] == []
            assert PostgresLedger(databases[number], READING).row_count() == 0

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ask, range(3)))
    for database in databases:
        database.dispose()

"""Sessions that own partitions: how others see them, how they end, and who may take over."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable, LedgerConflict, Superseded
from ingest_pipeline.core.record import NextOffset, StoredPosition, TopicIdentity
from ingest_pipeline.postgres import locks
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.postgres.session_settings import FROZEN_SECONDS, WRITING
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline_tests.contract.ledger_worlds import own_within
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import IDENTITY, READING, good, message
from ingest_pipeline_tests.waiting import wait_for

pytestmark = pytest.mark.empty_database

SESSION = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ingest run'"


def test_a_run_is_seen_in_the_servers_list_of_sessions(bench: Bench) -> None:
    session = bench.session
    with bench.database.connect("looking") as connection:
        assert locks.present_runs(connection) == {"run"}
    (backend,) = bench.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'ingest run'")
    holder = bench.ledger.owners([0]).holders[0]
    assert (holder.run_id, holder.pid, holder.frozen) == ("run", backend, False)
    session.connection.close()
    wait_for("the session to end", lambda: bench.sql(SESSION) == [0])
    assert bench.ledger.owners([0]).holders == {}


def test_a_position_that_is_no_offset_is_named(bench: Bench) -> None:
    bench.sql("UPDATE ingest.position SET first_offset = -1001, next_offset = -1001")
    with pytest.raises(LedgerConflict, match=r"partition 0: its position begins at -1001, which is no offset") as named:
        bench.ledger.positions()
    assert "delete this row of ingest.position" in named.value.message
    with pytest.raises(LedgerConflict):
        bench.ledger.snapshot()
    bench.sql("DELETE FROM ingest.position")
    assert bench.ledger.positions() == {}


def test_the_session_is_limited(bench: Bench) -> None:
    connection = bench.session.connection.driver_connection
    for name in ("idle_session_timeout", "idle_in_transaction_session_timeout"):
        assert connection.execute(f"SHOW {name}").fetchone() == (f"{FROZEN_SECONDS}s",)
    assert connection.execute("SHOW lock_timeout").fetchone() == ("5s",)
    connection.rollback()


def test_a_session_without_a_sign_of_life_ends_by_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WRITING, "idle_session_timeout", "300ms")
    session = bench.session
    second = bench.new_session("second")
    assert own_within(second, [0], 20.0) == {}
    with pytest.raises(DatabaseUnavailable):
        session.connection.heartbeat()
    with pytest.raises(Superseded):
        session.recover(None)


def test_recovery_ends_its_own_old_session(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a network cut: the server still holds the old session and its locks."""
    session = bench.session
    lost = session.connection.driver_connection
    monkeypatch.setattr(session.connection, "close", lambda: None)
    assert session.recover(None) is None
    assert bench.sql(SESSION) == [1]
    with pytest.raises(psycopg.OperationalError):
        lost.execute("SELECT 1")
    monkeypatch.undo()
    session.write(bench.batch([message(0, 0)]))
    lost.close()


def test_recovery_that_fails_half_way_forgets_no_session(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    session = bench.session
    lost = session.connection.driver_connection
    close = session.connection.close
    monkeypatch.setattr(session.connection, "close", lambda: None)
    with monkeypatch.context() as cut:

        def unreachable(*_: object) -> None:
            raise DatabaseUnavailable("cut again")

        cut.setattr(session.connection, "transaction", unreachable)  # before it ends the old session
        with pytest.raises(DatabaseUnavailable):
            session.recover(None)
    monkeypatch.setattr(session.connection, "close", close)
    assert session.recover(None) is None
    assert bench.sql(SESSION) == [1]
    lost.close()


def test_two_ledgers_in_one_database_do_not_know_each_other(bench: Bench) -> None:
    session = bench.session
    with Bench(bench.url, schemas=Schemas("other", "other_ledger")) as other:
        other.begin().write([good()])
        assert other.ledger.owners([0]).holders[0].run_id == "run"
        assert bench.ledger.positions()[0].next_offset == 0
    session.connection.heartbeat()


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_of_four_that_prepare_and_begin_an_empty_database_at_once_one_begins(database_url: str) -> None:
    databases = [Database(sqlalchemy_url(database_url)) for _ in range(4)]
    prepared = threading.Barrier(4)

    def begin(number: int) -> dict[int, StoredPosition]:
        ledger = PostgresLedger(databases[number], READING)
        ledger.prepare()
        prepared.wait(60.0)
        return ledger.begin(IDENTITY, {p: NextOffset(100 * number + p) for p in range(3)}, first=True)

    with ThreadPoolExecutor(4) as pool:
        begun = list(pool.map(begin, range(4)))
    assert begun == [PostgresLedger(databases[0], READING).positions()] * 4
    offsets = {p: position.next_offset for p, position in begun[0].items()}
    assert offsets in [{p: 100 * number + p for p in range(3)} for number in range(4)]
    for database in databases:
        database.dispose()


def test_ids_that_were_not_known_are_filled_in_once(database_url: str) -> None:
    with Bench(database_url) as bench:
        bench.ledger.prepare()
        bench.ledger.begin(TopicIdentity(None, None, 1), {0: NextOffset(0)}, first=True)
        for cluster, topic in ((None, None), ("c", None), ("other", "t"), ("other", "other")):
            bench.ledger.adopt_identity(TopicIdentity(cluster, topic, 1))
        position = bench.ledger.positions()[0]
        assert (position.cluster_id, position.topic_id) == ("c", "t")


def test_a_new_ledger_beside_an_old_table_uses_another_incarnation(bench: Bench) -> None:
    bench.write([good(), good()])
    bench.reopen()
    bench.sql("DROP SCHEMA ingest CASCADE")
    bench.begin()
    assert bench.ledger.positions()[0].incarnation == 2
    bench.write([good(), good()])
    assert bench.sql("SELECT kafka_incarnation, kafka_offset FROM reading ORDER BY 1, 2") == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]


def test_a_missing_ledger_reads_as_empty(database_url: str) -> None:
    with Bench(database_url) as bench:
        assert bench.ledger.positions() == {}
        assert bench.ledger.owners([0]).holders == {}
        assert not bench.ledger.state().paused


def test_the_ledgers_id_stays(bench: Bench) -> None:
    ledger_id = bench.ledger.ledger_id()
    bench.ledger.prepare()
    assert bench.ledger.ledger_id() == ledger_id


def test_an_awaited_topic_is_remembered(bench: Bench) -> None:
    assert not bench.ledger.state().awaited
    bench.ledger.pause("why", "ann")
    assert not bench.ledger.state().awaited
    bench.ledger.await_topic()
    bench.ledger.await_topic()
    assert bench.ledger.state().awaited
    assert bench.ledger.state().paused

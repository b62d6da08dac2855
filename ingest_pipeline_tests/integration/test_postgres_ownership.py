"""Sessions that own partitions: how they look from outside, how they end, and who may take over."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable, LedgerConflict, Superseded
from ingest_pipeline.core.record import NextOffset, TopicIdentity
from ingest_pipeline.postgres import database, locks
from ingest_pipeline.postgres.book import LedgerBook
from ingest_pipeline.postgres.database import Database, Schemas
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline_tests.contract.ledger_worlds import wait_for
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import IDENTITY, READING, good, message

SESSION = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ingest run'"


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    with Bench(database_url) as made:
        yield made.begin()


def test_a_run_is_seen_in_the_servers_list_of_sessions(bench: Bench) -> None:
    ledger = bench.ledger
    with bench.database.connect("looking") as connection:
        assert locks.present_runs(connection) == {"run"}
    (backend,) = bench.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'ingest run'")
    holder = bench.book.owners([0]).holders[0]
    assert (holder.run_id, holder.pid, holder.frozen) == ("run", backend, False)
    ledger.close()
    wait_for("the session to end", lambda: bench.sql(SESSION) == [0])
    assert bench.book.owners([0]).holders == {}


def test_a_position_that_is_no_offset_is_named(bench: Bench) -> None:
    bench.sql("UPDATE ingest.position SET first_offset = -1001, next_offset = -1001")
    with pytest.raises(LedgerConflict, match=r"partition 0: its position begins at -1001, which is no offset") as named:
        bench.book.positions()
    assert "delete this row of ingest.position" in named.value.message
    with pytest.raises(LedgerConflict):
        bench.book.snapshot()
    bench.sql("DELETE FROM ingest.position")
    assert bench.book.positions() == {}


def test_the_session_is_limited(bench: Bench) -> None:
    connection = bench.ledger._driver_connection
    for name in ("idle_session_timeout", "idle_in_transaction_session_timeout"):
        assert connection.execute(f"SHOW {name}").fetchone() == (f"{database.FROZEN_SECONDS}s",)
    assert connection.execute("SHOW lock_timeout").fetchone() == ("5s",)
    connection.rollback()


def test_a_session_without_a_sign_of_life_ends_by_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database._SESSION, "idle_session_timeout", "300ms")
    ledger = bench.ledger
    second = bench.new_ledger("second")
    assert second.own([0], exact=True, wait_seconds=20.0) == {}
    with pytest.raises(DatabaseUnavailable):
        ledger.heartbeat()
    with pytest.raises(Superseded):
        ledger.recover(None)


def test_recovery_ends_its_own_old_session(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the network is cut: the server still holds the old session and its locks."""
    ledger = bench.ledger
    lost = ledger._driver_connection
    monkeypatch.setattr(ledger, "_drop_connection", lambda: None)
    assert ledger.recover(None) is None
    assert bench.sql(SESSION) == [1]
    with pytest.raises(psycopg.OperationalError):
        lost.execute("SELECT 1")
    monkeypatch.undo()
    ledger.write(bench.batch([message(0, 0)]))
    lost.close()


def test_recovery_that_fails_half_way_forgets_no_session(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = bench.ledger
    lost = ledger._driver_connection
    drop = ledger._drop_connection
    monkeypatch.setattr(ledger, "_drop_connection", lambda: None)
    with monkeypatch.context() as cut:

        def unreachable(*_: object) -> None:
            raise DatabaseUnavailable("cut again")

        cut.setattr(locks, "end_backend", unreachable)
        with pytest.raises(DatabaseUnavailable):
            ledger.recover(None)
    monkeypatch.setattr(ledger, "_drop_connection", drop)
    assert ledger.recover(None) is None
    assert bench.sql(SESSION) == [1]
    lost.close()


def test_two_ledgers_in_one_database_do_not_know_each_other(bench: Bench) -> None:
    ledger = bench.ledger
    with Bench(bench.url, schemas=Schemas("other", "other_ledger")) as other:
        other.begin().write([good()])
        assert other.book.owners([0]).holders[0].run_id == "run"
        assert bench.book.positions()[0].next_offset == 0
    ledger.heartbeat()


# --- the book -------------------------------------------------------------------------------------------------------


def test_of_four_that_begin_at_once_one_does(database_url: str) -> None:
    with Bench(database_url) as bench:
        bench.book.prepare()
        databases = [Database(sqlalchemy_url(database_url)) for _ in range(4)]

        def begin(number: int) -> bool:
            book = LedgerBook(databases[number], READING)
            return book.begin(IDENTITY, {p: NextOffset(100 * number + p) for p in range(3)}, first=True)

        with ThreadPoolExecutor(4) as pool:
            begun = list(pool.map(begin, range(4)))
        for database in databases:
            database.dispose()
        assert sorted(begun) == [False, False, False, True]
        first = begun.index(True)
        found = {p: at.next_offset for p, at in bench.book.positions().items()}
        assert found == {p: 100 * first + p for p in range(3)}


def test_four_that_prepare_and_begin_an_empty_database(database_url: str) -> None:
    databases = [Database(sqlalchemy_url(database_url)) for _ in range(4)]

    def begin(database: Database) -> bool:
        book = LedgerBook(database, READING)
        book.prepare()
        return book.begin(IDENTITY, {0: NextOffset(0)}, first=True)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(begin, databases)) == [False, False, False, True]
    for beginner in databases:
        beginner.dispose()


def test_ids_that_were_not_known_are_filled_in_once(database_url: str) -> None:
    with Bench(database_url) as bench:
        bench.book.prepare()
        bench.book.begin(TopicIdentity(None, None, 1), {0: NextOffset(0)}, first=True)
        for cluster, topic in ((None, None), ("c", None), ("other", "t"), ("other", "other")):
            bench.book.adopt_identity(TopicIdentity(cluster, topic, 1))
        at = bench.book.positions()[0]
        assert (at.cluster_id, at.topic_id) == ("c", "t")


def test_a_new_ledger_beside_an_old_table_uses_another_incarnation(bench: Bench) -> None:
    bench.write([good(), good()])
    bench.ledger.close()
    bench.sql("DROP SCHEMA ingest CASCADE")
    bench.begin()
    assert bench.book.positions()[0].incarnation == 2
    again = bench.new_ledger("again")
    again.own([0], exact=True)
    bench._ledger = again
    bench.write([good(), good()])
    assert bench.sql("SELECT kafka_incarnation, kafka_offset FROM reading ORDER BY 1, 2") == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]


def test_without_a_ledger_the_book_is_empty(database_url: str) -> None:
    with Bench(database_url) as bench:
        assert bench.book.positions() == {}
        assert bench.book.owners([0]).holders == {}
        assert not bench.book.state().paused


def test_the_ledgers_id_stays(bench: Bench) -> None:
    found = bench.book.ledger_id()
    bench.book.prepare()
    assert bench.book.ledger_id() == found


def test_an_awaited_topic_is_remembered(bench: Bench) -> None:
    assert not bench.book.was_awaited()
    bench.book.pause("why", "ann")
    assert not bench.book.was_awaited()
    bench.book.await_topic()
    bench.book.await_topic()
    assert bench.book.was_awaited()
    assert bench.book.state().paused

"""A waiting run ends an owner without signs of life. An owner that makes progress, however slow, keeps its session."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from ingest_pipeline.postgres.session_settings import WRITING
from ingest_pipeline_tests.contract.ledger_worlds import own_within
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import good, message
from ingest_pipeline_tests.servers.proxy import TcpProxy
from ingest_pipeline_tests.waiting import wait_for

pytestmark = pytest.mark.slow
RECORDS, DEVICE = 200, "d" * 10_000


@pytest.fixture
def frozen(bench: Bench) -> Iterator[psycopg.Connection[Any]]:
    """The owner's connection, stuck in the middle of a COPY."""
    connection = bench.session.connection.driver_connection
    copy = connection.cursor().copy("COPY reading FROM STDIN")
    copy.__enter__()
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ingest run' AND wait_event = 'ClientRead'"
    )
    wait_for("the COPY to wait", lambda: bench.sql(waiting) == [1])
    yield connection
    with pytest.raises(psycopg.Error):
        copy.__exit__(None, None, None)


def test_a_waiter_ends_an_owner_frozen_in_copy(bench: Bench, frozen: psycopg.Connection[Any]) -> None:
    bench.database.copy_looks.frozen_seconds = 0
    second = bench.new_session("second")
    assert own_within(second, [0], 20.0) == {}


def test_a_waiter_ends_an_owner_frozen_behind_a_failed_copy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL ignores data that a client sends after a failed COPY, but the data ends the idle time-out."""
    monkeypatch.setitem(WRITING, "idle_in_transaction_session_timeout", "1s")
    connection = bench.session.connection.driver_connection
    copying = connection.cursor().copy("COPY reading FROM STDIN")
    copying.__enter__()
    send(connection, b"not a row\n")
    failed = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ingest run' AND state LIKE '%(aborted)'"
    wait_for("the COPY to fail", lambda: bench.sql(failed) == [1])
    send(connection, b"not a row either\n")
    time.sleep(3)  # far more than the time-out
    assert bench.sql(failed) == [1]
    bench.database.copy_looks.frozen_seconds = 0
    second = bench.new_session("second")
    assert own_within(second, [0], 20.0) == {}
    with pytest.raises(psycopg.Error):
        copying.__exit__(None, None, None)


def send(connection: psycopg.Connection[Any], lines: bytes) -> None:
    """Send at once, since psycopg's own writer keeps small pieces back."""
    connection.pgconn.put_copy_data(lines)
    connection.pgconn.flush()


def test_an_owner_is_not_frozen_before_its_time(bench: Bench) -> None:
    connection = bench.session.connection.driver_connection
    with connection.cursor().copy("COPY reading FROM STDIN"):
        second = bench.new_session("second")
        held = own_within(second, [0], 0.2, stop=lambda: "enough")
        assert held[0].run_id == "run"
        assert held[0].frozen is None  # one look cannot tell
    connection.rollback()
    bench.session.connection.heartbeat()


def test_a_copy_that_moves_is_not_frozen_whatever_its_age(bench: Bench) -> None:
    """A client behind a slow network. PostgreSQL waits for the client nearly all the time, in one COPY."""
    bench.database.copy_looks.frozen_seconds = 4
    session = bench.session
    connection = session.connection.driver_connection
    bench.sql("CREATE TABLE moving (n int)")
    waiter = bench.new_session("waiter")
    with ThreadPoolExecutor(1) as pool, connection.cursor().copy("COPY moving FROM STDIN"):
        asked = pool.submit(own_within, waiter, [0], 14.0)
        seen = set()
        while not asked.done():
            send(connection, b"1\n")
            time.sleep(0.5)
            seen.add(bench.ledger.owners([0]).holders[0].frozen)
        held = asked.result()
    assert held[0].run_id == "run"
    assert False in seen
    assert True not in seen
    connection.rollback()
    session.connection.heartbeat()


def test_a_stopped_process_in_copy_is_superseded(bench: Bench) -> None:
    """A COPY that moves for long and then stops. One look cannot tell."""
    bench.database.copy_looks.frozen_seconds = 4
    connection = bench.session.connection.driver_connection
    bench.sql("CREATE TABLE moving (n int)")
    copying = connection.cursor().copy("COPY moving FROM STDIN")
    copying.__enter__()
    for _ in range(10):
        send(connection, b"1\n")
        time.sleep(0.5)
        assert bench.ledger.owners([0]).holders[0].frozen in (False, None)
    wait_for("the ledger to see it", lambda: bench.ledger.owners([0]).holders[0].frozen is True)
    with Bench(bench.url) as fresh:
        assert fresh.ledger.owners([0]).holders[0].frozen is None
    second = bench.new_session("second")
    assert own_within(second, [0], 1.0) == {}
    with pytest.raises(psycopg.Error):
        copying.__exit__(None, None, None)


@pytest.mark.parametrize("in_transaction", [False, True])
def test_an_owner_that_shows_no_life_is_ended_whatever_its_state(bench: Bench, in_transaction: bool) -> None:
    """The server's own time-outs have not fired."""
    bench.database.copy_looks.frozen_seconds = 0
    if in_transaction:
        bench.session.connection.driver_connection.execute("SELECT 1")
    assert own_within(bench.new_session("second"), [0], 10.0) == {}


def test_an_owner_whose_statement_is_at_work_is_not_frozen(bench: Bench) -> None:
    bench.database.copy_looks.frozen_seconds = 0
    batch = bench.batch([message(0, 0)])
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ingest run' AND wait_event_type = 'Lock'"
    with psycopg.connect(bench.url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("LOCK TABLE reading")
        write = pool.submit(bench.session.write, batch)
        wait_for("the write to wait", lambda: bench.sql(waiting) == [1])
        second = bench.new_session("second")
        assert own_within(second, [0], 0.2)[0].frozen is False
        other.rollback()
        assert write.result(20.0).rows == {0: 1}


def test_a_batch_behind_a_slow_network_is_written_while_somebody_waits(database_url: str) -> None:
    """The COPY takes several times as long as an owner may show no life outside COPY."""
    where = urlsplit(database_url)
    with TcpProxy(where.port or 5432, where.hostname or "") as proxy, Bench(database_url) as beside:
        beside.begin()
        beside.database.copy_looks.frozen_seconds = 4
        slow = where._replace(netloc=f"{where.username}:{where.password}@127.0.0.1:{proxy.port}").geturl()
        with Bench(slow) as bench, ThreadPoolExecutor(1) as pool:
            batch = bench.batch([message(0, offset, good(DEVICE)) for offset in range(RECORDS)])
            proxy.latency(0.4)  # for each piece of at most 64 kB
            write = pool.submit(bench.session.write, batch)
            waiter = beside.new_session("waiter")
            seen = set()
            while not write.done():
                waiter.own([0], exact=True)
                seen.add(beside.ledger.owners([0]).holders[0].frozen)
                time.sleep(0.5)
            assert write.result().rows == {0: RECORDS}
            assert True not in seen
            proxy.let_pass()

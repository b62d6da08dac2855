"""The servers under the demo and other tests start, stop, crash, and come back with their files."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from ingest_pipeline.local.broker import EmbeddedBroker
from ingest_pipeline.local.postgres import EmbeddedPostgres
from ingest_pipeline.local.process_family import processes
from ingest_pipeline.local.server import HOST, LocalServerError
from ingest_pipeline_tests.servers import choose
from ingest_pipeline_tests.servers.broker import RealKafka, ServerUnavailable, asking_again
from ingest_pipeline_tests.servers.containers import check_engine

pytestmark = pytest.mark.empty_database


def produce(bootstrap_servers: str, topic: str, count: int) -> None:
    """Write ``count`` records to partition 0. Returns after all acknowledgements."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "acks": "all"})
    refused: list[object] = []
    for number in range(count):
        producer.produce(
            topic,
            str(number).encode(),
            partition=0,
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
    assert producer.flush(30) == 0
    assert refused == []


def end_offset(bootstrap_servers: str, topic: str, partition: int = 0) -> int:
    """Ask again while the leader starts, as the clients that write and read do."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": f"test-{uuid.uuid4().hex}"})
    place = TopicPartition(topic, partition)
    with closing(consumer):
        ask = partial(consumer.get_watermark_offsets, place, timeout=30)
        return asking_again(ask, [KafkaError.NOT_LEADER_FOR_PARTITION])[1]


@contextmanager
def refusing(reason: str) -> Iterator[str]:
    """A server source that does not work."""
    raise ServerUnavailable(reason)
    yield ""


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def ends_within(seconds: float, pid: int) -> bool:
    deadline = time.monotonic() + seconds
    while is_running := any(process.pid == pid for process in processes()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return not is_running


def started_by_a_killed_owner(folder: Path, before: str) -> int:
    """The pid of a PostgreSQL whose owner ran one more statement and then killed itself by SIGKILL."""
    owner = (
        "import os, pathlib, sys\n"
        "from ingest_pipeline.local.postgres import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        f"{before}\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", owner, str(folder)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    return int(killed.stdout)


class TestEmbeddedPostgres:
    def test_it_is_the_real_one_and_answers_on_loopback_only(self, own_postgres: EmbeddedPostgres) -> None:
        assert own_postgres.url.startswith("postgresql://postgres:")
        assert query(own_postgres.url, "show listen_addresses") == [("127.0.0.1",)]
        assert query(own_postgres.url, "show server_version_num")[0][0] >= "180000"
        assert query(own_postgres.url, "show fsync") == [("on",)]

    def test_it_asks_for_the_password(self, own_postgres: EmbeddedPostgres) -> None:
        without = own_postgres.url.replace(own_postgres.url.split(":")[2].split("@")[0], "guess")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(without)

    @pytest.mark.parametrize("ending", ["fast", "immediate"])
    def test_a_restart_keeps_rows_and_address(self, own_postgres: EmbeddedPostgres, ending: str) -> None:
        query(own_postgres.url, "create table kept as select 7 as number")
        before, pid = own_postgres.url, own_postgres.pid
        own_postgres.crash() if ending == "immediate" else own_postgres.stop()
        with pytest.raises(LocalServerError, match="does not run"):
            _ = own_postgres.pid
        own_postgres.start()
        assert own_postgres.url == before
        assert own_postgres.pid != pid
        assert query(own_postgres.url, "select number from kept") == [(7,)]

    def test_a_second_start_does_nothing(self, own_postgres: EmbeddedPostgres) -> None:
        pid = own_postgres.pid
        own_postgres.start()
        assert own_postgres.pid == pid

    def test_two_owners_of_one_folder_are_refused(self, own_postgres: EmbeddedPostgres) -> None:
        with pytest.raises(LocalServerError, match="another process already serves"):
            EmbeddedPostgres(own_postgres.data_dir).start()
        assert query(own_postgres.url, "select 1") == [(1,)]

    def test_it_stays_when_the_thread_that_started_it_ends(self, tmp_path: Path) -> None:
        server = EmbeddedPostgres(tmp_path)
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        try:
            assert query(server.url, "select 1") == [(1,)]
        finally:
            server.stop()

    def test_it_ends_with_a_killed_owner(self, tmp_path: Path) -> None:
        assert ends_within(10, started_by_a_killed_owner(tmp_path, ""))

    def test_a_server_left_behind_is_replaced(self, tmp_path: Path) -> None:
        left = started_by_a_killed_owner(tmp_path, "server._child._watcher.dismiss()")
        os.kill(left, 0)
        with EmbeddedPostgres(tmp_path) as server:
            assert ends_within(5, left)
            assert server.pid != left
            assert query(server.url, "select 1") == [(1,)]

    def test_a_setting_it_refuses_is_an_error_with_the_reason(self, tmp_path: Path) -> None:
        server = EmbeddedPostgres(tmp_path, options={"max_connections": "many"})
        with pytest.raises(LocalServerError, match="max_connections"):
            server.start()

    def test_without_the_wheel_the_error_names_the_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(LocalServerError, match=r"ingest-pipeline\[demo\]"):
            EmbeddedPostgres(tmp_path).start()


class TestEmbeddedBroker:
    def test_topics_exist_and_are_empty_before_anybody_comes(self) -> None:
        with EmbeddedBroker(["temperature", "price"], partitions=3) as broker:
            consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "reader"})
            topics = consumer.list_topics(timeout=10).topics
            consumer.close()
            assert {name: len(topic.partitions) for name, topic in topics.items()} == {
                "temperature": 3,
                "price": 3,
            }
            assert [end_offset(broker.bootstrap_servers, "price", partition) for partition in range(3)] == [0] * 3

    def test_other_processes_read_what_was_written(self, embedded_broker: EmbeddedBroker) -> None:
        produce(embedded_broker.bootstrap_servers, "written", 5)
        assert end_offset(embedded_broker.bootstrap_servers, "written") == 5

    def test_it_ends_with_stop(self) -> None:
        broker = EmbeddedBroker(["temperature"])
        broker.start()
        pid = broker.pid
        broker.stop()
        assert ends_within(0.1, pid)
        with pytest.raises(LocalServerError, match="does not run"):
            _ = broker.pid

    def test_it_ends_with_a_killed_owner(self) -> None:
        owner = (
            "import os\n"
            "from ingest_pipeline.local.broker import EmbeddedBroker\n"
            "broker = EmbeddedBroker(['temperature'])\n"
            "broker.start()\n"
            "print(broker.pid, flush=True)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        killed = subprocess.run([sys.executable, "-c", owner], stdout=subprocess.PIPE, check=False)
        assert ends_within(5, int(killed.stdout))

    def test_a_topic_name_it_refuses_is_an_error(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(LocalServerError, match="ended at its start"):
            EmbeddedBroker(["temperature", "temperature"]).start()
        assert "temperature" in capfd.readouterr().err


class TestRealKafka:
    def test_a_topic_is_made_and_holds_records(self, kafka_server: RealKafka, topic: Callable[..., str]) -> None:
        name = topic("readings", partitions=2)
        produce(kafka_server.bootstrap_servers, name, 3)
        assert end_offset(kafka_server.bootstrap_servers, name) == 3
        assert end_offset(kafka_server.bootstrap_servers, name, 1) == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("ending", ["kill", "stop"])
    def test_a_restart_keeps_acknowledged_records_and_address(self, own_kafka: RealKafka, ending: str) -> None:
        before = own_kafka.bootstrap_servers
        own_kafka.create_topic(ending, partitions=1)
        produce(before, ending, 100)
        getattr(own_kafka, ending)()
        own_kafka.start()
        assert own_kafka.bootstrap_servers == before
        assert end_offset(before, ending) == 100
        produce(before, ending, 1)
        assert end_offset(before, ending) == 101


class TestChoice:
    def test_the_first_way_that_works_is_taken(self) -> None:
        with choose._first([lambda: refusing("no engine"), lambda: nullcontext("second")]) as server:
            assert server == "second"

    def test_every_reason_is_given_when_none_works(self) -> None:
        ways = [lambda: refusing("no engine"), lambda: refusing("no java")]
        with pytest.raises(ServerUnavailable, match="no engine; no java"), choose._first(ways):
            pass

    def test_an_error_in_the_block_is_the_tests_own(self) -> None:
        with pytest.raises(LocalServerError, match="mine"), choose._first([lambda: nullcontext("first")]):
            raise LocalServerError("mine")

    def test_a_docker_engine_that_is_not_there_is_no_engine(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
        with pytest.raises(ServerUnavailable, match="no Docker engine answers"):
            check_engine()

    def test_a_docker_engine_that_does_not_answer_costs_two_seconds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server((HOST, 0)) as silent:
            monkeypatch.setenv("DOCKER_HOST", f"tcp://{HOST}:{silent.getsockname()[1]}")
            began = time.monotonic()
            with pytest.raises(ServerUnavailable, match="no Docker engine answers"):
                check_engine()
            assert time.monotonic() - began < 30, "the client of Docker waits 60 s"


@pytest.mark.parametrize(("required", "outcome"), [("0", "2 skipped"), ("1", "2 errors")])
def test_without_kafka_and_chromium_tests_are_skipped_or_fail_with_the_reason(
    tmp_path: Path, required: str, outcome: str
) -> None:
    root = Path(__file__).parents[2]
    tests = [f"{__file__}::TestRealKafka", str(root / "ingest_pipeline_tests" / "ui" / "test_ui.py")]
    bare = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "DOCKER_HOST": "unix:///none"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests, "-k", "holds or plotted"],
        env=bare | {"REQUIRE_KAFKA": required, "REQUIRE_CHROMIUM": required},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in run.stdout
    assert "java is not here" in run.stdout
    assert "no Chromium is here" in run.stdout


def test_every_database_is_new(database_url: str) -> None:
    assert query(database_url, "select count(*) from pg_tables where schemaname = 'public'") == [(0,)]
    query(database_url, "create table here as select 1 as number")

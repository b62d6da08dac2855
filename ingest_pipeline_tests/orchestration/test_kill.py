"""`kill -9` of draining runs, 20 times in a row: nothing lost, nothing twice, and no position ever goes back."""

import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

import dagster as dg
import psycopg
import pytest

import ingest_pipeline
from ingest_pipeline.core.roles import Role
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration import killed_run
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.records import prices, produce, temperatures, with_broken
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url

ROUNDS = 20
RECORDS, BROKEN_EVERY = 4000, 97
MAKERS = {"temperature": temperatures, "price": prices}


_STEPS_BACK = """
    create table public.step_back (line text);
    create function public.note_step_back() returns trigger language plpgsql as $$ begin
        insert into public.step_back values (format('%s: %s → %s', tg_op, old, new)); return null;
    end $$;
    create trigger goes_back after update on ingest.position for each row
        when (new.next_offset < old.next_offset or new."rows" < old."rows" or new.dead_letters < old.dead_letters)
        execute function public.note_step_back();
    create trigger goes_away after delete on ingest.position for each row execute function public.note_step_back()"""
_LINES = "select line from public.step_back"


def note_steps_back(url: str) -> None:
    """From now on PostgreSQL notes every position that goes back or away."""
    query(url, _STEPS_BACK)


def steps_back(url: str) -> list[str]:
    """What was noted. A step back that is undone shows that such steps are noted."""
    with psycopg.connect(url) as connection:
        noted = [line for (line,) in connection.execute(_LINES)]
        connection.execute('update ingest.position set next_offset = next_offset - 1, "rows" = "rows" - 1')
        assert len(connection.execute(_LINES).fetchall()) > len(noted)
        connection.rollback()
    return noted


class Feed:
    """Two topics while entered, their streams, and how much was written to them.

    Args:
        job: shared by the streams. "": every stream has a job of its own.
        role: of the runs.

    Attributes:
        jobs: job → its streams.
    """

    def __init__(self, kafka: RealKafka, url: str, job: str = "", role: Role = Role.WRITER) -> None:
        self.kafka, self.url = kafka, url
        self._connection = psycopg.connect(url, autocommit=True)
        self.suffix = f"-{uuid.uuid4().hex[:8]}"
        self.streams = [replace(stream, topic=stream.topic + self.suffix, job=job or stream.name) for stream in STREAMS]
        self.jobs: dict[str, list[Stream]] = {}
        for stream in self.streams:
            self.jobs.setdefault(stream.job, []).append(stream)
        self.produced: Counter[str] = Counter()
        self.environ = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_GROUP_PREFIX": f"kill{self.suffix}-",
            "DATABASE_URL": pipeline_url(url, self.streams, role),
            "BATCH_SIZE": "100",
            "RECORDS_PER_COMMIT": "200",
            "RUN_IDLE_SECONDS": "3600",
        }

    def __enter__(self) -> Self:
        for stream in self.streams:
            self.kafka.create_topic(stream.topic, 2)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        for stream in self.streams:
            self.kafka.delete_topic(stream.topic)

    def more(self, stream: Stream) -> None:
        """Another lot of records, no two alike, some of them broken."""
        records = MAKERS[stream.name](RECORDS, first=self.produced[stream.name])
        produce(self.kafka.bootstrap_servers, stream.topic, with_broken(records, BROKEN_EVERY))
        self.produced[stream.name] += RECORDS

    def broken(self, stream: Stream) -> int:
        return self.produced[stream.name] // RECORDS * (RECORDS // BROKEN_EVERY)

    def start(self, job: str, folder: Path) -> BaseProcess:
        """A run of the job."""
        topics = {stream.name: stream.topic for stream in self.jobs[job]}
        return killed_run.start(topics, self.environ, folder, job)

    def position(self, stream: Stream) -> int:
        """The sum over partitions; 0 before the stream has begun."""
        statement = "select coalesce(sum(next_offset), 0)::int from ingest.position where stream = %s"
        (position,) = self._connection.execute(statement, [stream.name]).fetchone() or (0,)
        return int(position)

    def lag(self) -> int:
        return sum(self.produced.values()) - sum(self.position(stream) for stream in self.streams)

    def assert_exact(self) -> None:
        for stream, column in zip(self.streams, ("device_id", "symbol"), strict=True):
            good = self.produced[stream.name] - self.broken(stream)
            counted = query(self.url, f"select count(*), count(distinct {column}) from {stream.table}")
            assert counted == [(good, good)], stream.name
            statement = "select count(*), count(distinct (kafka_partition, kafka_offset)) from ingest.dead_letter"
            letters = query(self.url, f"{statement} where stream = %s", stream.name)
            assert letters == [(self.broken(stream),) * 2], stream.name
            statement = 'select sum("rows")::int, sum(dead_letters)::int, sum(next_offset - first_offset)::int'
            counters = query(self.url, f"{statement} from ingest.position where stream = %s", stream.name)
            assert counters == [(good, self.broken(stream), self.produced[stream.name])], stream.name


@pytest.fixture(params=["", "sites"], ids=["own jobs", "one job"])
def feed(request: pytest.FixtureRequest, kafka_server: RealKafka, database_url: str) -> Iterator[Feed]:
    with Feed(kafka_server, database_url, request.param) as feed:
        yield feed


def kill_process(feed: Feed, job: str, folder: Path, targets: dict[str, int], pause: float) -> None:
    """Start a run and kill it shortly after it has moved the position of a stream past its target."""

    def moved() -> bool:
        return any(feed.position(stream) > targets[stream.name] for stream in feed.jobs[job])

    while True:
        process = feed.start(job, folder)
        wait_for("progress", lambda process=process: moved() or not process.is_alive(), every=0.002)
        if process.is_alive():
            break
        # The shard still belonged to the previous run, and this run ended as surplus.
        assert process.exitcode == 0, (folder / "run.log").read_text()[-2000:]
    time.sleep(pause)  # the moment is the point
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process.close()


def kill_processes(feed: Feed, folders: dict[str, Path], moments: random.Random) -> int:
    """Kill a draining run of each job, all at the same time. Returns the lag after the kills."""
    with ThreadPoolExecutor() as threads:
        kills = []
        for job, streams in feed.jobs.items():
            targets = {stream.name: feed.position(stream) + moments.randrange(RECORDS // 2) for stream in streams}
            for stream in streams:
                feed.more(stream)
            kills.append(threads.submit(kill_process, feed, job, folders[job], targets, moments.uniform(0, 0.02)))
    for kill in kills:
        kill.result()
    return feed.lag()


def drain_the_rest(feed: Feed, folders: dict[str, Path]) -> None:
    """Drain both topics to their end. A run that finds the killed run's ownership ends, and another one starts."""
    processes: dict[str, BaseProcess] = {}

    def drained() -> bool:
        for job, folder in folders.items():
            if job not in processes or not processes[job].is_alive():
                processes[job] = feed.start(job, folder)
        return feed.lag() == 0

    wait_for("lag 0", drained)
    for process in processes.values():
        process.kill()
        process.join()


@pytest.mark.kafka
@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_and_nothing_is_twice(feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(ingest_pipeline.__file__).parents[1]))
    moments = random.Random(20)
    folders = {job: tmp_path / job for job in feed.jobs}
    for folder in folders.values():
        folder.mkdir()
        dg.DagsterInstance.local_temp(str(folder)).dispose()
    note_steps_back(feed.url)
    left = [kill_processes(feed, folders, moments) for _ in range(ROUNDS)]
    drain_the_rest(feed, folders)
    assert sum(lag > 0 for lag in left) > ROUNDS // 3, f"hardly a run was killed in mid-drain: {left}"
    assert steps_back(feed.url) == []
    feed.assert_exact()

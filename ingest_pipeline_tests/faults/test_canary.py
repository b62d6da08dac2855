"""No secret and no payload appears in Dagster's storage, in logs, in exceptions or in `ps`."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.local.server import free_port
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.postgres import errors
from ingest_pipeline.settings import load_settings
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.faults import canary_run
from ingest_pipeline_tests.faults.canary import (
    CONSTRAINTS,
    REFUSED_BY_DATABASE,
    Canary,
    ProcessList,
    Ticket,
    bare_environ,
    good_prices,
    refused_prices,
    refused_tickets,
    secret_environ,
)
from ingest_pipeline_tests.faults.supervised import Dagster
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.location import SUFFIX
from ingest_pipeline_tests.orchestration.records import Record, produce
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
PRICE = STREAMS[1]


@dataclass
class World:
    """A topic, a database and a folder for everything left behind, with the word in every secret and payload."""

    canary: Canary
    kafka: RealKafka
    stream: Stream
    environ: dict[str, str]
    folder: Path

    @property
    def url(self) -> str:
        return self.environ["DATABASE_URL"]

    def prepare(self, *statements: str) -> None:
        clients = Clients(load_settings([self.stream.name], self.environ))
        clients.ledger(self.stream).prepare()
        clients.close()
        for statement in statements:
            query(self.url, statement)

    def produce(self, records: list[Record]) -> None:
        produce(self.kafka.bootstrap_servers, self.stream.topic, records)

    def run(self, leak: str | None = None, **environ: str) -> str:
        """One tick and one run. Returns the end of the run."""
        canary_run.run(self.stream, {**self.environ, **environ}, self.folder, leak)
        with dg.DagsterInstance.local_temp(str(self.folder)) as instance:
            (run,) = instance.get_runs(limit=1)
        return run.tags["ingest/ended"]

    def ingest(self, *arguments: str) -> str:
        """The output of a command, which is in the logs too."""
        log = self.folder / "ingest.log"
        before = log.stat().st_size if log.exists() else 0
        canary_run.ingest(arguments, {**bare_environ(), **self.environ}, log)
        return log.read_bytes()[before:].decode()

    def leaks(self) -> list[str]:
        told = query(self.url, "select coalesce(string_agg(reason, '\n'), '') from ingest.dead_letter")[0]
        return self.canary.in_folder(self.folder) + [f"reasons: {told}" for told in self.canary.in_bytes(told.encode())]

    def letters(self) -> int:
        return int(query(self.url, "select count(*) from ingest.dead_letter where status = 'open'")[0])


@pytest.fixture
def world(
    kafka_server: RealKafka, database_url: str, topic: Callable[..., str], tmp_path: Path
) -> Iterator[Callable[..., World]]:
    """``world(stream)``: a prepared world without tables."""

    canary, folder = Canary(), tmp_path / "left"
    folder.mkdir()
    with secret_environ(canary, database_url, tmp_path) as secret:

        def make(stream: Stream = PRICE) -> World:
            environ = {
                "KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
                "KAFKA_GROUP_PREFIX": f"canary-{uuid.uuid4().hex[:8]}-",
                "RUN_IDLE_SECONDS": "0",
                "BATCH_TIMEOUT": "0.1",
                "RETRY_SECONDS": "2",
                **secret,
            }
            return World(
                canary,
                kafka_server,
                stream=replace(stream, topic=topic(stream.name, 1)),
                environ=environ,
                folder=folder,
            )

        yield make


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_refused_records_are_reported_without_their_contents(world: Callable[..., World], method: str) -> None:
    pipeline = world()
    pipeline.prepare(CONSTRAINTS)
    refused = refused_prices(pipeline.canary)
    pipeline.produce([*good_prices(pipeline.canary), *refused])
    with ProcessList() as processes:
        assert pipeline.run(WRITE_METHOD=method) == "caught-up"
        assert pipeline.letters() == len(refused)
        assert "check violation" in pipeline.ingest("dead-letters", "list", "price")
        assert f"{len(refused)} refused again" in pipeline.ingest("dead-letters", "redrive", "price")
        query(pipeline.url, "alter table price drop constraint not_negative")
        assert pipeline.ingest("dead-letters", "redrive", "price").startswith("1 stored")
        pipeline.ingest("dead-letters", "redrive", "price", "--id", "x")
    assert pipeline.leaks() == []
    assert processes.looks > 1
    assert not [line for line in processes.lines if pipeline.canary.in_bytes(line)]
    shown = pipeline.ingest("dead-letters", "show", "price", "2")
    assert pipeline.canary.in_bytes(shown.encode()), "the word did not even reach the dead letters"


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_no_type_of_field_is_quoted(world: Callable[..., World], method: str) -> None:
    pipeline = world(Stream("ticket", Ticket))
    records = refused_tickets(pipeline.canary)
    pipeline.produce(records)
    assert pipeline.run(WRITE_METHOD=method) == "caught-up"
    assert pipeline.letters() == len(records) - 1
    assert pipeline.leaks() == []


QUOTING = """create function quote_it() returns trigger language plpgsql as $$
    begin raise exception 'refused: %', new.symbol using errcode = '{}', detail = new.symbol, hint = new.symbol; end $$;
    create trigger quote_it before insert on price for each row execute function quote_it()"""


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        ("U0001", "caught-up"),
        ("P0004", "caught-up"),
        ("XX001", "failed:UnknownFault"),
        ("53100", "failed:DatabaseUnavailable"),
        ("42501", "failed:NotPermitted"),
        ("42P01", "failed:SchemaMismatch"),
    ],
)
def test_a_triggers_words_are_not_repeated(world: Callable[..., World], state: str, ended: str) -> None:
    pipeline = world()
    pipeline.prepare(QUOTING.format(state))
    records = good_prices(pipeline.canary)
    pipeline.produce(records)
    assert pipeline.run() == ended
    assert pipeline.letters() == (len(records) if ended == "caught-up" else 0)
    assert pipeline.leaks() == []


@pytest.mark.parametrize(
    "environ",
    [
        {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_DEBUG": "security"},
        {"DATABASE_URL": "postgresql://postgres:{}@127.0.0.1:{}/postgres"},
        {"DATABASE_URL": "postgresql://postgres:{}@{}"},
    ],
    ids=["sasl", "no-database", "wrong-password"],
)
def test_a_failed_login_tells_no_password(world: Callable[..., World], environ: dict[str, str]) -> None:
    pipeline = world()
    pipeline.prepare()
    pipeline.produce(good_prices(pipeline.canary))
    if "DATABASE_URL" in environ:
        server = free_port() if "127" in environ["DATABASE_URL"] else pipeline.url.rpartition("@")[2]
        environ = {"DATABASE_URL": environ["DATABASE_URL"].format(pipeline.canary.word("password"), server)}
    assert pipeline.run(**environ).startswith("failed:")
    assert pipeline.leaks() == []


def quote_rows() -> None:
    """A product whose reasons quote PostgreSQL's DETAIL."""
    errors._template = lambda error, state: f"{state} {error}"  # type: ignore[assignment]


def log_rows() -> None:
    """A product that prints every value."""
    original = psycopg.Copy.write_row

    def write_row(copy: psycopg.Copy, row: tuple[object, ...]) -> None:
        print("sending", row)
        original(copy, row)

    psycopg.Copy.write_row = write_row  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("leak", [quote_rows, log_rows])
def test_a_leak_is_found(world: Callable[..., World], leak: Callable[[], None]) -> None:
    pipeline = world()
    pipeline.prepare(CONSTRAINTS)
    pipeline.produce([*good_prices(pipeline.canary), *refused_prices(pipeline.canary)[-len(REFUSED_BY_DATABASE) :]])
    pipeline.run(f"{leak.__module__}:{leak.__name__}")
    places = " ".join(leak_line.partition(":")[0] for leak_line in pipeline.leaks())
    assert ("reasons" in places and ".db" in places) if leak is quote_rows else (canary_run.LOG in places), places


def test_daemon_and_code_server_keep_nothing(world: Callable[..., World]) -> None:
    """Command lines, logs and storage of daemon, code server and run workers."""
    pipeline = world()
    pipeline.prepare(CONSTRAINTS)
    good, refused = good_prices(pipeline.canary), refused_prices(pipeline.canary)
    pipeline.produce([*good, *refused])
    suffix = pipeline.stream.topic.removeprefix(PRICE.topic)
    environ = {**pipeline.environ, SUFFIX: suffix, "POLL_SECONDS": "1", "TEMPERATURE_POLL_SECONDS": "300"}
    failed = dg.RunsFilter(job_name="drain_price", statuses=[dg.DagsterRunStatus.FAILURE])
    with (
        ProcessList() as processes,
        Dagster(pipeline.folder, environ, "ingest_pipeline_tests.orchestration.location") as dagster,
    ):
        wait_for("dead letters", lambda: pipeline.letters() == len(refused), every=0.2)
        query(pipeline.url, "drop trigger refuse on price; drop function quote_it; " + QUOTING.format("XX001"))
        pipeline.produce(good)
        wait_for("a failed run", lambda: dagster.instance.get_runs(failed), every=0.5)
    assert pipeline.leaks() == []
    assert not [line for line in processes.lines if pipeline.canary.in_bytes(line)]
    assert any(b"dagster" in line for line in processes.lines)

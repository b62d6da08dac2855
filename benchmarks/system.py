"""A whole system for one measurement: real Kafka, real PostgreSQL, `dagster dev` in a folder of its own."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.demo.simulate import Plan, Tally, simulate
from ingest_pipeline.local.postgres import EmbeddedPostgres
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev
from ingest_pipeline_tests.servers import choose
from ingest_pipeline_tests.servers.broker import RealKafka

TOPICS = ("temperature", "price")
PARTITIONS = 4


@dataclass
class System:
    """Addresses of the running servers, and the folder of their files."""

    folder: Path
    bootstrap_servers: str
    database_url: str
    kafka: RealKafka

    @property
    def database_port(self) -> int:
        return urlsplit(self.database_url).port or 5432

    def fresh_folder(self, name: str) -> Path:
        """A new folder whose name begins with `name`."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    def produce(self, records: int, broken_every: int = 1000) -> Tally:
        """Send records to both topics as fast as the broker takes them. On return all are acknowledged."""
        return self.send(Plan(topics=TOPICS, rate=0, records=records, broken_every=broken_every))

    def send(self, plan: Plan) -> Tally:
        """Carry out the plan."""
        with progress("producing", plan.total) as show:
            return simulate(
                {"bootstrap.servers": self.bootstrap_servers}, plan, report=lambda tally: show(tally.acknowledged)
            )

    def query(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return connection.execute(statement).fetchall()

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement)

    def versions(self) -> str:
        return f"{self.kafka.description}; PostgreSQL {self.query('SHOW server_version')[0][0]}, fsync on"


def send_all(running: System, plan: Plan) -> None:
    """Carry out the plan, and fail when the broker did not take every record."""
    assert running.send(plan).acknowledged == plan.total, "the broker did not take every record"


@contextmanager
def system(folder: Path) -> Iterator[System]:
    """Kafka with both topics and an empty PostgreSQL, for the block."""
    with ExitStack() as stack:
        kafka = stack.enter_context(choose.own_kafka(folder / "kafka"))
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        for topic in TOPICS:
            kafka.create_topic(topic, PARTITIONS)
        yield System(folder, kafka.bootstrap_servers, postgres.url, kafka)


@contextmanager
def dagster_dev(
    running: System,
    settings: Mapping[str, str],
    arguments: Sequence[str] = (),
    folder: Path | None = None,
    launcher: str = "",
) -> Iterator[DagsterDev]:
    """`dagster dev` on these servers, as a user starts it, for the block. It runs in `folder` or a new one.

    Args:
        launcher: the run launcher in YAML. Empty: Dagster's default.
    """
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": running.bootstrap_servers,
        "DATABASE_URL": running.database_url,
        **settings,
    }
    with DagsterDev(folder or running.fresh_folder("dagster"), environment, arguments, launcher) as dagster:
        yield dagster

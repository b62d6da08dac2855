"""Chooses the servers of the tests: the first in this order that can be started.

Kafka: the one named in TEST_KAFKA_BOOTSTRAP_SERVERS, Docker, Apache Kafka's jars.
PostgreSQL: the one named in TEST_DATABASE_URL (its role makes databases), the embedded wheel, Docker.

A server named in the environment must work, because then no other is tried. The embedded PostgreSQL comes before
Docker because it is the same real PostgreSQL and ready in a second.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import psutil
import psycopg
from psycopg import sql

from ingest_pipeline.local.postgres import EmbeddedPostgres
from ingest_pipeline.local.server import LocalServerError

from .broker import ExternalKafka, RealKafka, ServerUnavailable
from .kafka_cluster import KafkaCluster
from .kafka_jars import KafkaServer, check_java

POSTGRES_IMAGE = "postgres:18"
# The shared server never crashes, so its files need not outlive a power failure. Its password is random, so more rounds
# of SCRAM would protect nothing and take half the time of a connection.
QUICK_POSTGRES = {"max_connections": "200", "fsync": "off", "full_page_writes": "off", "scram_iterations": "1"}
MEMORY = Path("/dev/shm")
ROOM = 6 << 30
"""Bytes of free memory from which on the shared PostgreSQL keeps its files in memory. Each needs less than one GiB."""
NO_PROPERTIES: Mapping[str, str] = {}
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
"""Properties of a broker that checks its access control lists."""
Server = TypeVar("Server")


@dataclass(frozen=True)
class RealPostgres:
    """A running PostgreSQL. ``url`` is a ``postgresql://`` URL of a role that may make databases.

    ``strategy`` of CREATE DATABASE is the quicker one: ``file_copy`` for files in memory, ``wal_log`` for others.
    """

    url: str
    description: str
    strategy: str = "wal_log"

    def url_of(self, database: str) -> str:
        """The same server's URL with another database."""
        return urlsplit(self.url)._replace(path=f"/{database}").geturl()

    @contextmanager
    def new_database(self, template: str = "template1") -> Iterator[str]:
        """The name of a new copy of ``template``. Its end drops the copy and every session in it."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        identifiers = sql.Identifier(name), sql.Identifier(template)
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("create database {} template {} strategy {}").format(
                    *identifiers, sql.Identifier(self.strategy)
                )
            )
        try:
            yield name
        finally:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(sql.SQL("drop database {} with (force)").format(identifiers[0]))


@contextmanager
def real_kafka(folder: Path) -> Iterator[RealKafka]:
    """A running Kafka for the block, with its files in ``folder`` where it has files.

    Raises ServerUnavailable with the reason of every failed way.
    """
    named = os.environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS")
    if named:
        with ExternalKafka(named) as kafka:
            yield kafka
        return
    with own_kafka(folder) as kafka:
        yield kafka


@contextmanager
def shared_kafka(folder: Path) -> Iterator[RealKafka]:
    """As ``real_kafka``, but one Kafka for all processes that name this folder.

    The first process starts it, and at the end of its block waits for the ends of the others' blocks.
    """
    address = folder / "bootstrap_servers"
    with (folder / "starting").open("a") as starting, (folder / "users").open("a") as users:
        fcntl.flock(starting, fcntl.LOCK_EX)
        if address.exists():
            fcntl.flock(users, fcntl.LOCK_SH)
            fcntl.flock(starting, fcntl.LOCK_UN)
            with ExternalKafka(address.read_text()) as kafka:
                yield kafka
            return
        with real_kafka(folder / "kafka") as kafka:
            address.write_text(kafka.bootstrap_servers)
            fcntl.flock(starting, fcntl.LOCK_UN)
            yield kafka
            fcntl.flock(starting, fcntl.LOCK_EX)
            address.unlink()
            fcntl.flock(starting, fcntl.LOCK_UN)
            fcntl.flock(users, fcntl.LOCK_EX)


@contextmanager
def own_kafka(folder: Path, properties: Mapping[str, str] = NO_PROPERTIES) -> Iterator[RealKafka]:
    """As ``real_kafka``, but started here, so that a test may kill and restart it.

    ``properties`` are added to the broker's settings.
    """
    with _first([lambda: _kafka_in_docker(properties), lambda: _kafka_from_jars(folder, properties)]) as kafka:
        yield kafka


@contextmanager
def own_cluster(folder: Path, brokers: int) -> Iterator[KafkaCluster]:
    """Several brokers from Kafka's jars, for the block, which starts them itself."""
    check_java()
    cluster = KafkaCluster(folder, brokers)
    try:
        yield cluster
    finally:
        cluster.kill()


@contextmanager
def real_postgres(folder: Path) -> Iterator[RealPostgres]:
    """A running PostgreSQL for the block. Raises as ``real_kafka`` does."""
    named = os.environ.get("TEST_DATABASE_URL")
    if named:
        yield RealPostgres(named, f"PostgreSQL {_version(named)} at {urlsplit(named).hostname}")
        return
    with _first([lambda: _postgres_embedded(folder), lambda: _postgres_in_docker()]) as postgres:
        yield postgres


@contextmanager
def _first(ways: Sequence[Callable[[], AbstractContextManager[Server]]]) -> Iterator[Server]:
    reasons = []
    for way in ways:
        server = way()
        try:
            running = server.__enter__()
        except (ServerUnavailable, LocalServerError) as error:
            reasons.append(str(error))
            continue
        try:
            yield running
        finally:
            server.__exit__(None, None, None)
        return
    raise ServerUnavailable("; ".join(reasons))


@contextmanager
def _kafka_in_docker(properties: Mapping[str, str]) -> Iterator[RealKafka]:
    from .containers import check_engine
    from .kafka_container import KafkaInContainer

    check_engine()
    kafka = KafkaInContainer(properties)
    kafka.start()
    try:
        yield kafka
    finally:
        kafka.remove()


@contextmanager
def _kafka_from_jars(folder: Path, properties: Mapping[str, str]) -> Iterator[RealKafka]:
    kafka = KafkaServer(folder, properties=properties)
    kafka.start()
    try:
        yield kafka
    finally:
        kafka.kill()


@contextmanager
def _postgres_embedded(folder: Path) -> Iterator[RealPostgres]:
    in_memory = MEMORY.is_dir() and min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) > ROOM
    if in_memory:
        folder = _new_memory_folder()
    try:
        with EmbeddedPostgres(folder, options=QUICK_POSTGRES) as server:
            with psycopg.connect(server.url, autocommit=True) as connection:
                password = sql.Literal(urlsplit(server.url).password)  # set again, with the rounds of these options
                connection.execute(sql.SQL("alter role current_user password {}").format(password))
            description = f"PostgreSQL {_version(server.url)} from the embedded wheel"
            yield RealPostgres(server.url, description, "file_copy" if in_memory else "wal_log")
    finally:
        if in_memory:
            shutil.rmtree(folder, ignore_errors=True)


def _new_memory_folder() -> Path:
    """A folder in memory that this process has to remove. Removes the folders of killed processes."""
    prefix = "ingest-postgres-"
    for left in MEMORY.glob(f"{prefix}*"):
        if not psutil.pid_exists(int(left.name.removeprefix(prefix))):
            shutil.rmtree(left, ignore_errors=True)
    folder = MEMORY / f"{prefix}{os.getpid()}"
    folder.mkdir(mode=0o700)
    return folder


@contextmanager
def _postgres_in_docker() -> Iterator[RealPostgres]:
    from testcontainers.community.postgres import PostgresContainer

    from .containers import check_engine, start_container

    check_engine()
    container = PostgresContainer(POSTGRES_IMAGE, driver=None)
    start_container(container, POSTGRES_IMAGE)
    try:
        url = container.get_connection_url()
        yield RealPostgres(url, f"PostgreSQL {_version(url)} in Docker")
    finally:
        container.stop()


def _version(url: str) -> str:
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            return str(connection.info.parameter_status("server_version"))
    except psycopg.OperationalError as error:
        raise ServerUnavailable(f"PostgreSQL does not answer: {str(error).splitlines()[0]}") from None

"""Real servers for the tests, started on first use and ended by pid with the session.

Fixtures: ``database_url`` for a superuser's database with an empty ledger, ``writer_url`` for the same database with
the rights of the pipeline and the tables of the shipped streams, ``kafka_server`` and ``topic`` for a real broker,
``embedded_broker`` for speed, ``own_kafka`` and ``own_postgres`` to kill and restart a server, ``chromium`` for a
browser, ``prometheus`` for a real Prometheus, ``schema_registry`` for a real registry, and ``pgbouncer`` for a pooler
(requested before ``database_url``). The report's last lines list the servers in use. A missing server skips the test.
With REQUIRE_KAFKA=1, REQUIRE_POSTGRES=1, REQUIRE_CHROMIUM=1, REQUIRE_PROMETHEUS=1, REQUIRE_PGBOUNCER=1,
REQUIRE_SCHEMA_REGISTRY=1 or REQUIRE_REDIS=1 it is a failure.
"""

import os
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaException

from ingest_pipeline.local.broker import EmbeddedBroker
from ingest_pipeline.local.postgres import EmbeddedPostgres
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.servers import choose, postgres_roles
from ingest_pipeline_tests.servers.broker import RealKafka, ServerUnavailable
from ingest_pipeline_tests.servers.choose import RealPostgres
from ingest_pipeline_tests.servers.kafka_cluster import KafkaCluster
from ingest_pipeline_tests.servers.pgbouncer import PgBouncer
from ingest_pipeline_tests.servers.pgbouncer import program as pgbouncer_program
from ingest_pipeline_tests.servers.postgres_roles import PostgresRoles
from ingest_pipeline_tests.servers.prometheus import PrometheusServer, programs
from ingest_pipeline_tests.servers.schema_registry import SchemaRegistryServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_USED = pytest.StashKey[list[str]]()
_AT_END = pytest.StashKey[ExitStack]()
_REQUIRE = [
    f"REQUIRE_{server}"
    for server in ("KAFKA", "POSTGRES", "CHROMIUM", "PROMETHEUS", "PGBOUNCER", "SCHEMA_REGISTRY", "REDIS")
]
_KAFKA_FIXTURES = {"kafka_server", "own_kafka", "kafka_cluster", "topic"}


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_USED] = []
    config.stash[_AT_END] = ExitStack()
    # SIGTERM would end Python without running the fixtures' ends and leave the servers behind. A background job starts
    # with SIGINT ignored. Dagster copies that to SIGTERM, and every server started later would ignore SIGTERM too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    named = [name for name in ("TEST_KAFKA_BOOTSTRAP_SERVERS", "TEST_DATABASE_URL") if os.environ.get(name)]
    required = [name for name in _REQUIRE if os.environ.get(name) == "1"]
    return [
        f"servers: named by {', '.join(named) or 'no variable'}, required by {', '.join(required) or 'no variable'}"
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need Kafka, and put a file with slow tests beside every two other files.

    Slow tests mostly wait and other tests mostly compute, so that the processes rarely do the same at a time. The files
    with the longest time-outs come first, so that none of them runs alone at the end.
    """
    slow: dict[Path, float] = {}
    for item in items:
        if item.get_closest_marker("slow"):
            timeout = item.get_closest_marker("timeout")
            slow[item.path] = max(slow.get(item.path, 0.0), timeout.args[0] if timeout else 0.0)
    others = dict.fromkeys(item.path for item in items if item.path not in slow)
    order = {path: 2 * number for number, path in enumerate(sorted(slow, key=lambda path: -slow[path]))}
    order |= {path: number for number, path in enumerate(others)}
    items.sort(key=lambda item: order[item.path])
    for item in items:
        if _KAFKA_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist ends its shared servers, and reports its servers to the main process."""
    session.config.stash[_AT_END].close()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["servers"] = session.config.stash[_USED]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[_USED].extend(getattr(node, "workeroutput", {}).get("servers", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in dict.fromkeys(config.stash[_USED]):
        terminalreporter.write_line(f"ran on {line}")


@contextmanager
def needed(variable: str) -> Iterator[None]:
    """Turn an unavailable server into a skip with the reason, or into a failure if the server is required."""
    try:
        yield
    except ServerUnavailable as error:
        if os.environ.get(variable) == "1":
            pytest.fail(f"{variable}=1, but: {error}", pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[RealPostgres]:
    """A PostgreSQL shared by the session. Do not stop it."""
    with needed("REQUIRE_POSTGRES"), choose.real_postgres(tmp_path_factory.mktemp("postgres")) as server:
        pytestconfig.stash[_USED].append(server.description)
        yield server
        postgres_roles.drop_roles(server.url)


@pytest.fixture(scope="session")
def migrated_database(postgres_server: RealPostgres) -> Iterator[str]:
    """The name of a database with an empty ledger. A copy takes a third of the migrations' time."""
    with postgres_server.new_database() as name:
        PostgresRoles(postgres_server.url_of(name), [])
        yield name


@pytest.fixture
def database_url(request: pytest.FixtureRequest, postgres_server: RealPostgres) -> Iterator[str]:
    """URL of a database for one test, with an empty ledger. The database and its sessions end with the test.

    The mark ``empty_database`` gives a database without a ledger.
    """
    empty = request.node.get_closest_marker("empty_database")
    template = "template1" if empty else request.getfixturevalue("migrated_database")
    with postgres_server.new_database(template) as name:
        yield postgres_server.url_of(name)


@pytest.fixture
def writer_url(database_url: str) -> str:
    """`database_url` for the role that runs the pipeline. The tables of the shipped streams are there."""
    return postgres_roles.pipeline_url(database_url, STREAMS)


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A running PostgreSQL for one test, which may crash, stop and start it."""
    with EmbeddedPostgres(tmp_path / "postgres") as server:
        yield server


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> RealKafka:
    """A real Kafka shared by the session and all workers of pytest-xdist. Do not stop it.

    It ends with the session, because a fixture's end counts to the time-out of the last test.
    """
    folder = tmp_path_factory.getbasetemp()
    if hasattr(pytestconfig, "workerinput"):
        folder = folder.parent
    with needed("REQUIRE_KAFKA"):
        server = pytestconfig.stash[_AT_END].enter_context(choose.shared_kafka(folder))
    pytestconfig.stash[_USED].append(server.description)
    return server


@pytest.fixture(scope="session")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealKafka]:
    """A second real Kafka for the session. A test may kill, stop and start it, and make access control lists for topics
    and groups of its own. Leave it running.
    """
    folder = tmp_path_factory.mktemp("kafka") / "own"
    with needed("REQUIRE_KAFKA"), choose.own_kafka(folder, choose.AUTHORIZER) as server:
        yield server


@pytest.fixture(scope="module")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], KafkaCluster]]:
    """``kafka_cluster(brokers)`` makes a cluster for one test module, which starts it and may kill brokers."""
    with ExitStack() as cleanup:

        def make(brokers: int) -> KafkaCluster:
            with needed("REQUIRE_KAFKA"):
                return cleanup.enter_context(choose.own_cluster(tmp_path_factory.mktemp("kafka") / "cluster", brokers))

        yield make


@pytest.fixture
def topic(kafka_server: RealKafka) -> Iterator[Callable[..., str]]:
    """``topic(hint="events", partitions=4, config=None)`` makes a topic and returns its unique name."""
    made: list[str] = []

    def make(hint: str = "events", partitions: int = 4, config: Mapping[str, str] | None = None) -> str:
        name = f"{hint}-{uuid.uuid4().hex[:8]}"
        kafka_server.create_topic(name, partitions, config)
        made.append(name)
        return name

    yield make
    for name in made:
        with suppress(KafkaException):  # the test may have deleted it
            kafka_server.delete_topic(name)


@pytest.fixture(scope="session")
def embedded_broker(pytestconfig: pytest.Config) -> Iterator[EmbeddedBroker]:
    """librdkafka's mock cluster in a child process. A topic appears on first use, with 4 partitions."""
    with EmbeddedBroker([]) as broker:
        pytestconfig.stash[_USED].append("the embedded broker (librdkafka's mock cluster)")
        yield broker


@pytest.fixture(scope="module")
def schema_registry(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[SchemaRegistryServer]:
    """A real schema registry for one test module, which may stop and start it. A stop loses its schemas."""
    with needed("REQUIRE_SCHEMA_REGISTRY"), SchemaRegistryServer(tmp_path_factory.mktemp("registry")) as server:
        pytestconfig.stash[_USED].append(server.description)
        yield server


@pytest.fixture(scope="module")
def chromium(pytestconfig: pytest.Config) -> Iterator["Browser"]:
    """The system's Chromium, headless. Pages of other machines are blocked."""
    from ingest_pipeline_tests.servers import browser

    with needed("REQUIRE_CHROMIUM"), browser.chromium() as running:
        pytestconfig.stash[_USED].append(f"Chromium {running.version}")
        yield running


@pytest.fixture
def pgbouncer(tmp_path: Path, database_url: str) -> Iterator[Callable[..., PgBouncer]]:
    """``pgbouncer("transaction", pool_size=1)`` starts a PgBouncer in this mode, before the test's database exists."""
    with needed("REQUIRE_PGBOUNCER"), ExitStack() as running:
        pgbouncer_program()

        def start(mode: str, pool_size: int = 20) -> PgBouncer:
            folder = tmp_path / f"pgbouncer-{uuid.uuid4().hex[:8]}"
            folder.mkdir()
            return running.enter_context(PgBouncer(folder, database_url, mode, pool_size))

        yield start


@pytest.fixture
def promtool() -> str:
    """promtool, if Prometheus is installed."""
    with needed("REQUIRE_PROMETHEUS"):
        return programs()[1]


@pytest.fixture
def prometheus(promtool: str, tmp_path: Path) -> Callable[[str, Path], PrometheusServer]:
    """``with prometheus(target, rules) as server``: a real Prometheus for one test, which scrapes host:port."""

    def make(target: str, rules: Path) -> PrometheusServer:
        folder = tmp_path / "prometheus"
        folder.mkdir()
        return PrometheusServer(folder, target, rules)

    return make

"""`make_bench` makes code locations in this process."""

import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from ingest_pipeline.core.ports import Clock
from ingest_pipeline.core.roles import Role
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration.build import definitions_with
from ingest_pipeline.settings import Settings, load_settings
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import AheadClock, Bench, ChangedClients
from ingest_pipeline_tests.orchestration.quick_dagster import quicken_dagster
from ingest_pipeline_tests.servers import postgres_roles

TEMPERATURE, PRICE = STREAMS

# Copying a run's output takes four processes, which a test of what the run does can be without.
NO_COMPUTE_LOGS = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}


@pytest.fixture(scope="session")
def dagster_storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a new Dagster instance, to copy."""
    quicken_dagster()
    files = tmp_path_factory.mktemp("dagster")
    dg.DagsterInstance.local_temp(str(files), overrides=NO_COMPUTE_LOGS).dispose()
    return files


@pytest.fixture
def make_bench(
    request: pytest.FixtureRequest, database_url: str, dagster_storage: Path, tmp_path: Path
) -> Iterator[Callable[..., Bench]]:
    """``make_bench(streams=[TEMPERATURE], partitions=2, BATCH_SIZE="10", …)`` makes a topic for every stream. With
    ``partitions=0`` no topic is made. A run ends as soon as it is caught up, unless RUN_IDLE_SECONDS says otherwise.

    With KAFKA_BOOTSTRAP_SERVERS, no topic is made. ``clients`` makes the clients from settings and clock.

    The pipeline has the rights of a writer, and the tables are there. The mark ``role`` names another role. An owner
    makes the ledger and the tables itself, also without this mark in an empty database.
    """
    mark = request.node.get_closest_marker("role")
    empty = request.node.get_closest_marker("empty_database")
    role: Role = mark.args[0] if mark else Role.OWNER if empty else Role.WRITER
    opened: list[ChangedClients] = []
    tables: set[str] = set()
    with ExitStack() as cleanup:

        def make(
            streams: Sequence[Stream] = (TEMPERATURE,),
            partitions: int = 2,
            clients: Callable[[Settings, Clock], ChangedClients] = ChangedClients,
            **environ: str,
        ) -> Bench:
            if "KAFKA_BOOTSTRAP_SERVERS" not in environ:
                environ["KAFKA_BOOTSTRAP_SERVERS"] = request.getfixturevalue("kafka_server").bootstrap_servers
                topic = request.getfixturevalue("topic")
                streams = [replace(stream, topic=_topic(topic, stream.name, partitions)) for stream in streams]
            usual = {
                "DATABASE_URL": postgres_roles.url_of(database_url, role),
                "KAFKA_GROUP_PREFIX": f"test-{uuid.uuid4().hex[:8]}-",
                "RUN_IDLE_SECONDS": "0",
                "BATCH_TIMEOUT": "0.1",
            }
            environ = {**usual, **environ}
            url = database_url if environ["DATABASE_URL"] == usual["DATABASE_URL"] else environ["DATABASE_URL"]
            settings = load_settings({stream.name: stream.job for stream in streams}, environ)
            used = {table.table for stream in streams for table in stream.tables}
            if url == database_url and (settings.accepts_losses or not used <= tables):
                tables.update(used)
                postgres_roles.pipeline_url(database_url, streams, role, accepts_losses=settings.accepts_losses)
            clock = AheadClock()
            opened.append(clients(settings, clock))
            definitions = definitions_with(opened[-1], streams)
            folder = tmp_path / f"instance-{len(opened)}"
            shutil.copytree(dagster_storage, folder)
            instance = cleanup.enter_context(dg.DagsterInstance.local_temp(str(folder), overrides=NO_COMPUTE_LOGS))
            return Bench(streams, environ, url, settings, opened[-1], definitions, instance, clock)

        yield make
        for made in opened:
            made.close()


def _topic(new: Callable[..., str], hint: str, partitions: int) -> str:
    return new(hint, partitions) if partitions else f"{hint}-{uuid.uuid4().hex[:8]}"

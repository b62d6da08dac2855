"""The faults of a single stream of a shared job. The records of all other streams arrive during the fault."""

import os
import random
import subprocess
import sys
from pathlib import Path

import psycopg

from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline_tests.faults import feed
from ingest_pipeline_tests.faults.chaos_faults import Strike, Struck
from ingest_pipeline_tests.faults.chaos_servers import alter
from ingest_pipeline_tests.faults.chaos_world import World
from ingest_pipeline_tests.faults.producers import PARTITIONS
from ingest_pipeline_tests.faults.shared_streams import DOOMED
from ingest_pipeline_tests.faults.supervised import ROOT
from ingest_pipeline_tests.orchestration.bench import wait_for

_FLOOD, _DOOMED_RECORDS = 1200, 200
_NOTED_SECONDS = 120.0
_FAILED = "select failure from ingest.stream_state where stream = %s and failure_stops and failed_at > %s"


def lock_until_healed(world: World, draw: random.Random) -> Struck:
    stream = draw.choice(list(feed.SHAPES))
    connection = psycopg.connect(world.url, application_name="chaos")
    connection.execute(f"lock table {stream} in access exclusive mode")
    return Struck(stream, stream=stream, heal=connection.close)


def rename_column(world: World, draw: random.Random) -> Struck:
    """A dropped column would lose its values, which the oracle compares."""
    stream = draw.choice(list(feed.SHAPES))
    column = feed.SHAPES[stream].number
    since = _now(world)
    alter(world, f"alter table {stream} rename column {column} to renamed")
    _wait_for_failure(world, stream, since)
    return Struck(
        stream, stream=stream, heal=lambda: alter(world, f"alter table {stream} rename column renamed to {column}")
    )


def poison(world: World, draw: random.Random) -> Struck:
    """Send refused records beyond the limit, and let them pass later."""
    stream = draw.choice(list(feed.SHAPES))
    since = _now(world)
    _allow(world, stream, 0)
    world.producers.flood(stream, _FLOOD)
    _wait_for_failure(world, stream, since)
    return Struck(stream, stream=stream, heal=lambda: _allow(world, stream, _FLOOD))


def delete_topic(world: World, draw: random.Random) -> Struck:
    """Delete the topic of the stream `doomed`, and create it again with an accepted loss."""
    doomed = world.doomed
    assert doomed is not None
    doomed.send(_DOOMED_RECORDS)
    wait_for("rows of the doomed stream", lambda: doomed_rows(world) == (doomed.sent, doomed.sent), 180, every=0.5)
    since = _now(world)
    world.kafka.delete_topic(DOOMED)
    _wait_for_failure(world, DOOMED, since)
    return Struck(DOOMED, stream=DOOMED, heal=lambda: _create_again(world))


def doomed_rows(world: World) -> tuple[int, int]:
    """(rows, different records) of the doomed stream."""
    ((rows, different),) = world.sql(f"select count(*), count(distinct device_id) from {DOOMED}")
    return rows, different


def _create_again(world: World) -> None:
    world.kafka.create_topic(DOOMED, PARTITIONS)
    command = [str(Path(sys.executable).with_name("ingest")), "accept-loss", DOOMED, "--from", "earliest", "--yes"]

    def accepted() -> bool:
        return (
            subprocess.run(
                command, cwd=ROOT, env={**os.environ, **world.environ}, capture_output=True, check=False
            ).returncode
            == 0
        )

    wait_for("an accepted loss", accepted, _NOTED_SECONDS, every=2.0)


def _allow(world: World, stream: str, count: int) -> None:
    database = Database(sqlalchemy_url(world.url))
    declared = {shared.name: shared for shared in world.streams}
    PostgresLedger(database, declared[stream]).allow_letters(count)
    database.dispose()


def _now(world: World) -> object:
    ((moment,),) = world.sql("select clock_timestamp()")
    return moment


def _wait_for_failure(world: World, stream: str, since: object) -> None:
    wait_for(f"the failure of {stream}", lambda: world.sql(_FAILED, stream, since), _NOTED_SECONDS, every=0.2)


STREAM_FAULTS: dict[str, tuple[int, Strike]] = {
    "lock one table": (2, lock_until_healed),
    "rename a column of one table": (1, rename_column),
    "poison one stream beyond its limit": (1, poison),
    "delete one topic": (1, delete_topic),
}

"""A real Dagster whose runs start late: one launch, one successor in time before the owner's age, and Terminate."""

import uuid
from pathlib import Path

import pytest

from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev
from ingest_pipeline_tests.orchestration.location import SUFFIX
from ingest_pipeline_tests.orchestration.records import produce, temperatures
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.long, pytest.mark.timeout(600)]
START_SECONDS = 60
"""More than Dagster's default launcher is given, and more than a run past its age waits for its successor."""
LAUNCHER = f"""
run_launcher:
  module: ingest_pipeline_tests.orchestration.slow_launcher
  class: SlowRunLauncher
  config: {{seconds: {START_SECONDS}}}
run_coordinator:
  module: ingest_pipeline.orchestration.run_coordinator
  class: CancelingRunCoordinator
"""


def test_one_launch_and_a_hand_over_without_a_gap(
    kafka_server: RealKafka, database_url: str, writer_url: str, tmp_path: Path
) -> None:
    suffix = f"-{uuid.uuid4().hex[:8]}"
    name = f"temperature{suffix}"
    kafka_server.create_topic(name, 2)
    environ = {
        SUFFIX: suffix,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
        "DATABASE_URL": writer_url,
        "RUN_MAX_SECONDS": "190",
        "RUN_IDLE_SECONDS": "3600",
        "KAFKA_GROUP_PREFIX": f"{name}-",
    }
    location = ("-m", "ingest_pipeline_tests.orchestration.location")
    with DagsterDev(tmp_path, environ, location, settings=LAUNCHER) as dagster:
        produce(kafka_server.bootstrap_servers, name, temperatures(20))
        wait_for("a launch", lambda: dagster.runs("temperature"))

        def owner() -> str | None:
            found = query(database_url, "select run_id from ingest.position where run_id is not null limit 1")
            return found[0] if found else None

        first = wait_for("an owner", owner, 180, every=0.5)
        assert [run.run_id for run in dagster.runs("temperature")] == [first], "one launch"
        second = wait_for("its successor", lambda: run if (run := owner()) != first else None, 300, every=0.5)
        ended = dagster.ended(first)
        assert ended.tags[tags.ENDED] == "age"
        launched = {run.run_id: run for run in dagster.runs("temperature")}
        assert set(launched) == {first, second}, "one successor"
        assert launched[second].tags[tags.SUCCESSOR] == "age"
        assert dagster.times(second)[0] < dagster.times(first)[1], (
            "the successor's process was there before the owner ended"
        )
        dagster.terminate(second)
        terminated = dagster.ended(second)
        assert (terminated.status, terminated.tags[tags.ENDED]) == ("CANCELED", "terminated")

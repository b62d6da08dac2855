"""RUN_MAX_BATCHES=1, the literal one batch a run, through a real sensor: each run takes at most BATCH_SIZE records."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev
from ingest_pipeline_tests.orchestration.location import SUFFIX
from ingest_pipeline_tests.orchestration.records import prices, produce, temperatures, with_broken
from ingest_pipeline_tests.servers.broker import RealKafka

BATCH, RECORDS = 1000, 1750


def committed(folder: Path, run_id: str) -> int:
    """Rows by the lines that a run's step wrote to stderr, as Dagster keeps it."""
    logs = (folder / ".dagster_storage" / "compute_logs" / run_id).rglob("*.err")
    lines = [json.loads(line) for path in logs for line in path.read_text().splitlines() if line.startswith("{")]
    return sum(line["rows"] for line in lines if line["message"] == "committed")


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_runs_of_one_batch_follow_until_nothing_is_left(
    kafka_server: RealKafka, database_url: str, tmp_path: Path
) -> None:
    suffix = f"-{uuid.uuid4().hex[:8]}"
    environ = {
        SUFFIX: suffix,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
        "KAFKA_GROUP_PREFIX": f"one{suffix}-",
        "DATABASE_URL": database_url,
        "BATCH_SIZE": str(BATCH),
        "RUN_MAX_BATCHES": "1",
        "LOG_FORMAT": "json",
    }
    made = {"temperature": with_broken(temperatures(RECORDS), 250), "price": prices(RECORDS)}
    for stream, records in made.items():
        kafka_server.create_topic(stream + suffix, 2)
        produce(kafka_server.bootstrap_servers, stream + suffix, records)
    with DagsterDev(tmp_path, environ, ["-m", "ingest_pipeline_tests.orchestration.location"]) as dagster:
        for stream in made:
            wait_for(
                f"{stream} at lag 0", lambda stream=stream: dagster.skip_reason(stream) == "caught up: lag 0", 200, 0.5
            )
            wait_for(
                "the last run's end", lambda stream=stream: all(run.ended for run in dagster.runs(stream)), 60, 0.5
            )
        runs = {stream: dagster.runs(stream) for stream in made}
    for stream, rows in (("temperature", RECORDS - RECORDS // 250), ("price", RECORDS)):
        ended = [run for run in runs[stream] if run.status == "SUCCESS"]
        taken = [int(run.tags[tags.ROWS]) for run in ended]
        assert all(run.tags[tags.ENDED] == "batches" for run in ended)
        assert max(taken) <= BATCH
        assert [committed(tmp_path, run.run_id) for run in ended] == taken
        assert len(taken) >= 2
        assert sum(taken) == rows
        assert query(database_url, f"select count(*) from {stream}") == [rows]
    letters = query(database_url, "select stream, count(*) from ingest.dead_letter group by stream")
    assert letters == [("temperature", RECORDS // 250)]
    for stream in made:
        kafka_server.delete_topic(stream + suffix)

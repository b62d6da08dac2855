"""A stream that declares `max_silence` turns stale in Dagster when nothing comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev
from ingest_pipeline_tests.orchestration.records import produce, temperatures
from ingest_pipeline_tests.servers.broker import RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
LOCATION = ("-m", "ingest_pipeline_tests.orchestration.silent_location")
_STATUS = """query ($key: AssetKeyInput!) {assetNodeOrError(assetKey: $key) {... on AssetNode {
    freshnessStatusInfo {freshnessStatus}}}}"""


def freshness(dagster: DagsterDev) -> str:
    """UNKNOWN, HEALTHY or DEGRADED."""
    node = dagster.ask(_STATUS, key={"path": ["temperature"]})["assetNodeOrError"]
    return str(node["freshnessStatusInfo"]["freshnessStatus"])


def test_silence_is_seen(kafka_server: RealKafka, topic: Callable[..., str], database_url: str, tmp_path: Path) -> None:
    name = topic("silent", partitions=1)
    environ = {
        "TEST_TOPIC": name,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
        "DATABASE_URL": database_url,
        "RUN_MAX_SECONDS": "10",
        "RUN_IDLE_SECONDS": "0",
    }
    with DagsterDev(tmp_path, environ, LOCATION) as dagster:
        produce(kafka_server.bootstrap_servers, name, temperatures(5, partitions=1))
        for expected in ("HEALTHY", "DEGRADED"):
            wait_for(expected, lambda expected=expected: freshness(dagster) == expected, 240, every=1.0)

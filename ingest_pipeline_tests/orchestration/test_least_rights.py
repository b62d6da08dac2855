"""The pipeline runs as a writer, and a reader sees its status."""

from collections.abc import Callable

import pytest

from ingest_pipeline.core.roles import Role
from ingest_pipeline.operations.check import findings
from ingest_pipeline.operations.levels import Level
from ingest_pipeline.operations.status import statuses
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.conftest import TEMPERATURE
from ingest_pipeline_tests.orchestration.records import temperatures, with_broken
from ingest_pipeline_tests.servers.postgres_roles import PostgresRoles, name_of

pytestmark = [pytest.mark.kafka, pytest.mark.empty_database]


def test_writer_and_reader(make_bench: Callable[..., Bench], database_url: str) -> None:
    made = PostgresRoles(database_url, [TEMPERATURE])
    bench = make_bench(DATABASE_URL=made.url_of(Role.WRITER))
    bench.produce(with_broken(temperatures(40), 20))
    assert bench.tick().run_requests
    assert bench.outcome(bench.drain()) == ("caught-up", "38")
    bench.tick()
    result = bench.by_hand()
    assert result.success
    assert len(result.get_asset_check_evaluations()) > 3
    assert bench.definitions.resolve_job_def("maintenance").execute_in_process(instance=bench.instance).success
    assert [finding for finding in findings(bench.clients, bench.streams) if not finding.ok] == []
    made.as_owner("REVOKE INSERT ON temperature FROM " + name_of(Role.WRITER))
    bench.produce(temperatures(2))
    assert not bench.by_sensor().success
    (status,) = statuses(bench.contexts, rates=True)
    assert "permission denied for table temperature" in status.messages[0]
    assert "\n" not in status.messages[0]

    reader = make_bench(
        bench.streams, 0, DATABASE_URL=made.url_of(Role.READER), KAFKA_BOOTSTRAP_SERVERS=bench.bootstrap_servers
    )
    made.as_owner("GRANT INSERT ON temperature TO " + name_of(Role.WRITER))
    bench.drain()
    (status,) = statuses(reader.contexts, rates=True)
    assert status.level == Level.DEGRADED
    assert status.messages[0].startswith("2 open dead letters. ")
    assert any(message.startswith("this role may not read the event table, so ") for message in status.messages)
    assert [row.rows_per_second for row in status.partitions] == [None, None]
    assert (status.lag, sum(row.rows or 0 for row in status.partitions)) == (0, 40)

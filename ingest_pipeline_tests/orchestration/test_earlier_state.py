"""A database of an earlier state: what runs, checks and `ingest status` say, and what is stored."""

from collections.abc import Callable
from urllib.parse import urlsplit

import dagster as dg
import pytest

from ingest_pipeline.orchestration.checks import NO_LOSS
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import temperatures
from ingest_pipeline_tests.servers.choose import RealPostgres

pytestmark = pytest.mark.kafka
BEHIND = "the ledger is 70 offsets behind its own group"
POSITIONS = "partition 0 at 50 of 85, partition 1 at 50 of 85"


def no_loss(bench: Bench) -> dg.AssetCheckEvaluation:
    """The evaluation of `no_data_loss` by a run, which succeeds."""
    result = bench.by_sensor()
    assert result.success
    (evaluation,) = [check for check in result.get_asset_check_evaluations() if check.check_name == NO_LOSS]
    if not evaluation.passed:
        assert str(evaluation.description) in bench.said(str(result.run_id))
    return evaluation


def test_a_restored_database_gives_a_warning_and_its_records_are_read_again(
    make_bench: Callable[..., Bench], postgres_server: RealPostgres
) -> None:
    bench = make_bench()
    bench.produce(temperatures(100))
    assert no_loss(bench).passed
    bench.clients.close()
    with postgres_server.new_database(template=urlsplit(bench.url).path[1:]) as backup:
        bench.produce(temperatures(70, first=100))
        assert no_loss(bench).passed
        environ = {**bench.environ, "DATABASE_URL": postgres_server.url_of(backup)}
        restored = make_bench(streams=bench.streams, **environ)
        status = ingest(restored, "status", code=1)
        assert BEHIND in status
        assert POSITIONS in status
        evaluation = no_loss(restored)
        assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert str(evaluation.description).startswith(BEHIND)
        assert POSITIONS in str(evaluation.description)
        assert restored.query("select count(*), count(distinct (kafka_partition, kafka_offset)) from temperature") == [
            (170, 170)
        ]
        restored.produce(temperatures(2, first=170))
        assert BEHIND not in ingest(restored, "status")
        assert no_loss(restored).passed
        restored.clients.close()

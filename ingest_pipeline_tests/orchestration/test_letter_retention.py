"""The job `maintenance` on a real ledger: settled dead letters of this code location's streams go when they are old."""

from collections.abc import Callable

import pytest

from ingest_pipeline_tests.orchestration.bench import Bench, failure
from ingest_pipeline_tests.orchestration.records import temperatures, with_broken

pytestmark = pytest.mark.kafka
LEFT = "select stream, kafka_partition, status from ingest.dead_letter order by 1, 2"


def maintain(bench: Bench) -> str:
    """What the job's run said."""
    job = bench.definitions.resolve_job_def("maintenance")
    result = job.execute_in_process(instance=bench.instance, raise_on_error=False)
    assert result.success, failure(result)
    return bench.said(result.run_id)


def test_old_settled_letters_of_our_streams_are_deleted(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(SETTLED_LETTER_RETENTION_DAYS="3")
    bench.produce(with_broken(temperatures(20), 7))
    bench.drain()
    assert bench.query(LEFT) == [("temperature", 0, "open"), ("temperature", 1, "open")]
    bench.query(
        """insert into ingest.dead_letter (stream, topic, kafka_incarnation, kafka_partition, kafka_offset, value_bytes,
               value_sha256, truncated, stage, reason, run_id)
           select 'theirs', topic, 1, 0, 0, 0, '', false, 'decode', 'x', 'run' from ingest.dead_letter limit 1"""
    )
    bench.query("update ingest.dead_letter set status = 'discarded', resolved_at = now() - interval '4 days'"
               " where kafka_partition = 0")  # fmt: skip
    assert "purged 1 settled dead letters of temperature" in maintain(bench)
    assert bench.query(LEFT) == [("temperature", 1, "open"), ("theirs", 0, "discarded")]
    assert bench.query("select bool_and(accounted) from ingest.accounting") == [True]


def test_purged_letters_are_reported(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.produce(with_broken(temperatures(20), 7))
    bench.drain()
    bench.query("update ingest.dead_letter set status = 'discarded', resolved_at = now()")
    assert "though nothing purged them" not in maintain(bench)
    bench.query("delete from ingest.dead_letter where kafka_partition = 1")
    assert "1 settled dead letters of temperature are gone though nothing purged them" in maintain(bench)


def test_a_stream_that_has_not_begun_is_passed_over(make_bench: Callable[..., Bench]) -> None:
    assert "purged" not in maintain(make_bench())

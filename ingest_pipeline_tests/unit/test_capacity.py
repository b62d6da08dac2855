"""The sessions and the memory that all runs need together."""

from dataclasses import replace

import pytest

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.check import capacity_findings
from ingest_pipeline.settings import load_settings
from ingest_pipeline_tests.samples import READING

STREAMS = [replace(READING, name=f"reading_{number}", topic="", table="", job="") for number in range(60)]


def findings(streams: list[Stream], limit: int, **environ: str) -> list[tuple[bool, str]]:
    jobs = {stream.name: stream.job for stream in streams}
    settings = load_settings(jobs, {"DATABASE_URL": "postgresql://127.0.0.1/y", "DATABASE_POOL_MIN": "5", **environ})
    return [(finding.ok, str(finding)) for finding in capacity_findings(settings, streams, limit)]


def test_sixty_jobs_need_more_sessions_than_a_default_server_has() -> None:
    (sessions, *_) = findings(STREAMS, 97)
    assert sessions[0] is False
    assert "60 runs and the code server need up to 125 sessions, and the role may have 97" in sessions[1]
    assert "job=" in sessions[1]


def test_one_job_of_sixty_streams_fits() -> None:
    shared = [replace(stream, job="sites") for stream in STREAMS]
    assert [ok for ok, _ in findings(shared, 97)] == [True]
    (sessions, *_) = findings(shared, 97, SITES_PARALLELISM="8")
    assert "8 runs and the code server need up to 21 sessions, the role may have 97" in sessions[1]


@pytest.mark.parametrize(("parallelism", "fits"), [("1", True), ("64", False)])
def test_runs_that_need_more_memory_than_the_machine_are_named(parallelism: str, fits: bool) -> None:
    streams = STREAMS if not fits else STREAMS[:1]
    lines = findings(streams, 10_000, PARALLELISM=parallelism)
    assert all(ok for ok, _ in lines) is fits

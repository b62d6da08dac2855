"""A run to the end of a topic in a child process, so that a crash ends nothing else."""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import dagster as dg

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.settings import load_settings
from ingest_pipeline_tests.orchestration import killed_run

LOG = "run.log"


def drain(stream: Stream, environ: Mapping[str, str], folder: Path) -> str | None:
    """Returns after the end of the run: None, or the failure.

    Args:
        folder: of the Dagster instance and of the log.
    """
    # a Stream that was looked at cannot be pickled
    declared = {member.name: getattr(stream, member.name) for member in fields(stream)}
    process = killed_run.FORKS.Process(target=_run, args=(declared, dict(environ), folder))
    process.start()
    process.join()
    ended, code = None, process.exitcode
    process.close()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        for run in instance.get_runs(limit=1):
            ended = run.tags.get(tags.ENDED)
    if (code, ended) == (0, "caught-up"):
        return None
    return f"{ended}, exit code {code}: {(folder / LOG).read_text()[-3000:]}"


def _run(declared: dict[str, Any], environ: dict[str, str], folder: Path) -> None:
    with (folder / LOG).open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    stream = Stream(**declared)
    job = build_definitions([stream], load_settings([stream.name], environ)).resolve_job_def(tags.job_name(stream.job))
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        job.execute_in_process(instance=instance, tags={tags.STREAM: stream.name, tags.SHARD: "0/1"})

"""A sensor's run in a process of its own, to be killed: a fork of a server that has imported everything."""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

# Imported for the server: a run imports them when it begins.
import alembic.command
import confluent_kafka.admin
import dagster as dg
import psycopg
import sqlalchemy

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.core.streams import by_name
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.settings import load_settings
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.quick_dagster import quicken_dagster

IMPORTED = (alembic.command, confluent_kafka.admin, psycopg, sqlalchemy)
quicken_dagster()
FORKS = multiprocessing.get_context("forkserver")
"""Starts forks of a server that has imported everything, also for other tests."""
FORKS.set_forkserver_preload([__name__])


def start(topics: Mapping[str, str], environ: Mapping[str, str], folder: Path, job: str = "") -> BaseProcess:
    """A run of the only shard of shipped streams, on the Dagster instance in this folder.

    Args:
        topics: stream name → topic.
        job: shared by the streams. Needed for more than one stream.
    """
    process = FORKS.Process(target=drain, args=(dict(topics), dict(environ), folder, job))
    process.start()
    return process


def drain(topics: Mapping[str, str], environ: Mapping[str, str], folder: Path, job: str = "") -> None:
    """Drain shipped streams in this process. See `start`."""
    shipped = by_name(STREAMS)
    streams = [replace(shipped[name], topic=topic, job=job or name) for name, topic in topics.items()]
    _drain(streams, environ, folder)


def drain_stream(make: Callable[[], Stream], environ: Mapping[str, str], folder: Path) -> None:
    """Drain a stream that this process makes."""
    _drain([make()], environ, folder)


def _drain(streams: Sequence[Stream], environ: Mapping[str, str], folder: Path) -> None:
    with (folder / "run.log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    (job_name,) = {stream.job for stream in streams}
    settings = load_settings({stream.name: stream.job for stream in streams}, environ)
    job = build_definitions(streams, settings).resolve_job_def(tags.job_name(job_name))
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        run_tags = {**tags.drain_tags(job_name, streams), tags.SHARD: "0/1"}
        job.execute_in_process(instance=instance, tags=run_tags)

"""A sensor's run in a process of its own, to be killed: a fork of a server that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
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


def start(name: str, topic: str, environ: Mapping[str, str], folder: Path) -> BaseProcess:
    """A run of a shipped stream's only shard, on the Dagster instance in this folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=drain, args=(name, topic, dict(environ), folder))
    process.start()
    return process


def drain(name: str, topic: str, environ: Mapping[str, str], folder: Path) -> None:
    """What the process does."""
    drain_stream(lambda: replace(by_name(STREAMS)[name], topic=topic), environ, folder)


def drain_stream(make: Callable[[], Stream], environ: Mapping[str, str], folder: Path) -> None:
    """The same for a stream that is made here."""
    stream = make()
    with (folder / "run.log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    definitions = build_definitions([stream], load_settings([stream.name], environ))
    job = definitions.resolve_job_def(tags.job_name(stream.job))
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        job.execute_in_process(instance=instance, tags={tags.STREAM: stream.name, tags.SHARD: "0/1"})

"""Runs and commands in a child process, with all output in a file."""

import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from ingest_pipeline.cli import main
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.settings import load_settings
from ingest_pipeline_tests.orchestration import killed_run

LOG = "run.log"


def run(stream: Stream, environ: Mapping[str, str], folder: Path, leak: str | None = None) -> None:
    """One sensor tick and one run. Returns after the process has ended.

    Args:
        folder: of the Dagster instance and of the log.
        leak: "module:function" to call first. The function makes the product leak on purpose.
    """
    declared = stream.name, stream.event, stream.topic  # a Stream that was looked at cannot be pickled
    process = killed_run.FORKS.Process(target=_run, args=(declared, dict(environ), folder, leak))
    process.start()
    process.join()
    assert process.exitcode == 0, (folder / LOG).read_text()[-3000:]
    process.close()


def ingest(arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
    """A command in a child process with this environment alone. The file gets all output."""
    process = killed_run.FORKS.Process(target=_ingest, args=(arguments, dict(environ), log))
    process.start()
    process.join()
    process.close()


def _ingest(arguments: Sequence[str], environ: dict[str, str], log: Path) -> None:
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["ingest", *arguments]
    main.main()


def _run(declared: tuple[Any, ...], environ: dict[str, str], folder: Path, leak: str | None) -> None:
    stream = Stream(*declared)
    with (folder / LOG).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if leak is not None:
        module, _, function = leak.partition(":")
        getattr(importlib.import_module(module), function)()
    definitions = build_definitions([stream], load_settings([stream.name], environ))
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        sensor = definitions.resolve_sensor_def(tags.sensor_name(stream.job))
        try:
            print(sensor.evaluate_tick(dg.build_sensor_context(instance=instance)))
        except dg.Failure:  # the tick failed, and the run is tried all the same
            traceback.print_exc()
        job = definitions.resolve_job_def(tags.job_name(stream.job))
        run_tags = {tags.STREAM: stream.name, tags.SHARD: "0/1"}
        result = job.execute_in_process(instance=instance, tags=run_tags, raise_on_error=False)
        for event in result.all_events:
            print(event)
        for entry in instance.all_logs(result.run_id):
            print(entry.to_json() if hasattr(entry, "to_json") else entry)
        print(instance.get_run_by_id(result.run_id))

"""Jobs that pause and resume a stream, for people who work in the UI. The CLI does the same by the same ledger call."""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from ...core.errors import IngestError
from ...operations.stream_context import StreamContext
from .. import tags

STREAM = "Name of the stream."


def pause_job(contexts: Mapping[str, StreamContext]) -> dg.JobDefinition:
    """`pause_stream`: the stream stops within a batch and stays so."""
    names = stream_names(contexts)

    class PauseConfig(dg.Config):
        """Which stream, and why."""

        stream: names = Field(description=STREAM)  # type: ignore[valid-type]
        reason: str = Field(default="paused in the UI", description="Shown in the sensor's skip reason and in status.")

    @dg.op(name="pause_stream_op")
    def pause(context: dg.OpExecutionContext, config: PauseConfig) -> None:
        ledger = context_of(config.stream, contexts).ledger
        with told_in_a_line():
            ledger.prepare()
            ledger.pause(config.reason, f"run {context.run_id[:8]}")

    return one_op_job(pause, "pause_stream", "Stop a stream within a batch.")


def resume_job(contexts: Mapping[str, StreamContext]) -> dg.JobDefinition:
    """`resume_stream`: lift the pause. The next tick launches a run."""
    names = stream_names(contexts)

    class ResumeConfig(dg.Config):
        """Which stream."""

        stream: names = Field(description=STREAM)  # type: ignore[valid-type]

    @dg.op(name="resume_stream_op")
    def resume(config: ResumeConfig) -> None:
        with told_in_a_line():
            context_of(config.stream, contexts).ledger.resume()

    return one_op_job(resume, "resume_stream", "Let a paused stream go on.")


def one_op_job(op: dg.OpDefinition, name: str, description: str) -> dg.JobDefinition:
    """A job among OTHER_JOBS, executed in the process of its run."""

    @dg.job(name=name, executor_def=dg.in_process_executor, tags={tags.JOB: name}, description=description)
    def job() -> None:
        op()

    return job


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """A failure ends the run with its message and without a traceback."""
    try:
        yield
    except IngestError as error:
        raise dg.Failure(description=error.message, allow_retries=False) from None


def stream_names(streams: Iterable[str]) -> Any:
    """The choices for `stream` in a run's config. The launchpad offers these names and refuses others before a launch.

    Dagster 1.13 identifies enums of a process by name, so other streams need another name.
    """
    names = list(streams)
    return Enum(f"Stream_{zlib.crc32(' '.join(names).encode()):08x}", {name: name for name in names})


def context_of(chosen: Any, contexts: Mapping[str, StreamContext]) -> StreamContext:
    """The stream that a run's config names."""
    return contexts[chosen.value]

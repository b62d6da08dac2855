"""One mechanism for the jobs that an operator launches from the UI: a dry run unless the config says otherwise."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from ...core.errors import IngestError, SettingsError
from ...core.timestamps import parse_instant
from ...operations.stream_context import StreamContext
from .. import tags

DRY_RUN = "a dry run, nothing was changed. To do it, launch the job again with dry_run: false"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation did, or would do.

    Attributes:
        interrupted: Terminate ended the operation early.
    """

    lines: Sequence[str]
    counts: Mapping[str, int] = field(default_factory=dict)
    interrupted: bool = False


class OperationConfig(dg.Config):
    """The field that every operation has beside the stream's name."""

    dry_run: bool = Field(default=True, description="Only show what the job would do. Set false to do it.")


Operation = Callable[[StreamContext, Any, dg.OpExecutionContext], Outcome]
"""The work of a job on one stream, called with the run's config. The job has the function's name, and its docstring is
the description in the UI. With `dry_run` the function changes nothing, and its outcome says what it would do."""


def operation_job(
    operation: Operation, config_type: type[OperationConfig], stream_contexts: Mapping[str, StreamContext]
) -> dg.JobDefinition:
    """The operation's job for these streams, executed in the process of its run.

    Args:
        config_type: the fields of the run's config. `stream` is added.
    """
    name, names = operation.__name__, stream_names(stream_contexts)

    class StreamConfig(config_type):  # type: ignore[valid-type, misc]
        """The operation's fields, for one stream."""

        stream: names = Field(description="Name of the stream.")  # type: ignore[valid-type]

    @dg.op(name=f"{name}_op", out=dg.Out(dg.Nothing, description="Its metadata are the operation's counts."))
    def run_operation(context: dg.OpExecutionContext, config: StreamConfig) -> None:
        with told_in_a_line():
            outcome = operation(stream_contexts[config.stream.value], config, context)  # type: ignore[attr-defined]
        for line in outcome.lines:
            context.log.info(line)
        if config.dry_run:
            context.log.warning(DRY_RUN)
            context.instance.add_run_tags(context.run_id, {tags.DRY_RUN: "true"})
        context.add_output_metadata({**outcome.counts, **({"dry_run": DRY_RUN} if config.dry_run else {})})
        if outcome.interrupted:
            raise dg.DagsterExecutionInterruptedError

    @dg.job(
        name=name,
        executor_def=dg.in_process_executor,
        tags={tags.JOB: name},
        description=f"{operation.__doc__} A dry run, unless dry_run is false.",
    )
    def job() -> None:
        run_operation()

    return job


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """A failure ends the run with its message and without a traceback."""
    try:
        yield
    except IngestError as error:
        raise dg.Failure(description=error.message, allow_retries=False) from None


def by_run(context: dg.OpExecutionContext) -> str:
    """Who acts, for the ledger."""
    return f"run {context.run_id[:8]}"


def optional_time(text: str) -> datetime | None:
    """A time of the run's config. None for an empty text. Raises SettingsError for a text that is no timestamp."""
    try:
        return parse_instant(text) if text else None
    except ValueError as error:
        raise SettingsError(f"{text!r}: {error}") from None


def stream_names(streams: Iterable[str]) -> Any:
    """The choices for `stream` in a run's config. The launchpad offers these names and refuses others before a launch.

    Dagster 1.13 identifies enums of a process by name, so other streams need another name.
    """
    names = list(streams)
    return Enum(f"Stream_{zlib.crc32(' '.join(names).encode()):08x}", {name: name for name in names})

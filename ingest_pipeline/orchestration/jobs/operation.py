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
        lines: for the run's log.
        counts: for the metadata.
        interrupted: Terminate ended the operation early.
    """

    lines: Sequence[str]
    counts: Mapping[str, int] = field(default_factory=dict)
    interrupted: bool = False


class OperationConfig(dg.Config):
    """The field that every operation has beside the stream's name."""

    dry_run: bool = Field(default=True, description="Only show what the job would do. Set false to do it.")


@dataclass(frozen=True, slots=True)
class Operation:
    """A job on one stream.

    Attributes:
        name: of the job. Its op is `<name>_op`.
        description: what the job does, as the UI shows it.
        config: the fields of the run's config. `stream` is added.
        run: does the work. With `dry_run` in the config it changes nothing, and its outcome says what it would do.
    """

    name: str
    description: str
    config: type[OperationConfig]
    run: Callable[[StreamContext, Any, dg.OpExecutionContext], Outcome]


def operation_job(operation: Operation, stream_contexts: Mapping[str, StreamContext]) -> dg.JobDefinition:
    """The operation's job for these streams, executed in the process of its run."""
    name, names = operation.name, stream_names(stream_contexts)

    class StreamConfig(operation.config):  # type: ignore[name-defined, misc]
        """The operation's fields, for one stream."""

        stream: names = Field(description="Name of the stream.")  # type: ignore[valid-type]

    @dg.op(name=f"{name}_op", out=dg.Out(dg.Nothing, description="Its metadata are the operation's counts."))
    def run_operation(context: dg.OpExecutionContext, config: StreamConfig) -> None:
        with told_in_a_line():
            outcome = operation.run(stream_contexts[config.stream.value], config, context)  # type: ignore[attr-defined]
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
        description=f"{operation.description} A dry run, unless dry_run is false.",
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

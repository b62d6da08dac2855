"""Jobs that redrive dead letters and replay missing rows. The CLI makes the same calls."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from ...core.end_reasons import EndReason
from ...core.errors import RefusalStage
from ...core.letter_filter import LetterFilter
from ...core.timestamps import parse_instant
from ...operations.limits import record_rules
from ...operations.replays import ReplayRequest, ranges, run_replay
from ...operations.stream_context import StreamContext
from ..run.stop_signal import StopRequest
from .pause import STREAM, context_of, one_op_job, stream_names, told_in_a_line

COUNTS = dg.Out(dg.Nothing, description="Its metadata are the counts by outcome.")


_ANY = "any"
Stage: Any = Enum("Stage", [(name, name) for name in (_ANY, *(stage.value for stage in RefusalStage))])  # type: ignore[misc]
"""Members by name: one is called value."""


class LetterConfig(dg.Config):
    """Selects open dead letters. An empty field selects all."""

    stage: Stage = Field(default=Stage[_ANY], description="What refused them.")
    sqlstate: str = Field(default="", description="For example 23514.")
    reason: str = Field(default="", description="A part of the reason's text.")
    since: str = Field(default="", description="Refused at or after this ISO 8601 time.")
    until: str = Field(default="", description="Refused before this ISO 8601 time.")
    ids: list[int] = Field(default=[], description="Ids of letters. Empty for all.")
    dry_run: bool = Field(default=False, description="Try everything, change nothing.")


class RangeConfig(dg.Config):
    """A range of offsets of one partition, or of times of one or all."""

    partition: int | None = Field(default=None, description="Needed with offsets. With times the default is all.")
    from_offset: int | None = Field(default=None, description="The first offset.")
    to_offset: int | None = Field(default=None, description="The offset behind the last one.")
    from_time: str = Field(default="", description="ISO 8601, by Kafka's timestamps. UTC without a zone.")
    to_time: str = Field(default="", description="Up to, but not including.")


def redrive_job(contexts: Mapping[str, StreamContext]) -> dg.JobDefinition:
    """`redrive_dead_letters`: decode stored letters with today's code and store the rows."""
    names = stream_names(contexts)

    class RedriveConfig(LetterConfig):
        """Of one stream."""

        stream: names = Field(description=STREAM)  # type: ignore[valid-type]

    @dg.op(name="redrive_dead_letters_op", out=COUNTS)
    def redrive(context: dg.OpExecutionContext, config: RedriveConfig) -> None:
        from ...postgres.dead_letters import DeadLetters

        stream_context = context_of(config.stream, contexts)
        stream, clients = stream_context.stream, stream_context.clients
        letter_filter = LetterFilter(
            stage=None if config.stage.name == _ANY else config.stage.name,
            sqlstate=config.sqlstate or None,
            reason=config.reason or None,
            since=_time(config.since),
            until=_time(config.until),
            ids=config.ids or None,
        )
        with told_in_a_line():
            letters = DeadLetters(clients.database(), stream)
            decode, rules = clients.decoder(stream).decode, record_rules(stream_context.settings, stream)
            done = letters.redrive(letter_filter, decode, rules, dry_run=config.dry_run)
            if done.truncated:
                context.log.warning(letters.how_to_fetch(letter_filter))
        would = "a dry run, nothing was changed: " if config.dry_run else ""
        counts = asdict(done)
        context.log.info(would + ", ".join(f"{count:,} {what}" for what, count in counts.items()))
        context.add_output_metadata(counts)

    return one_op_job(
        redrive,
        "redrive_dead_letters",
        "Decode open dead letters with today's code and store the rows under their own coordinates.",
    )


def replay_job(contexts: Mapping[str, StreamContext]) -> dg.JobDefinition:
    """`replay`: read a range from Kafka again and store what is missing."""
    names = stream_names(contexts)

    class ReplayConfig(RangeConfig):
        """Of one stream."""

        stream: names = Field(description=STREAM)  # type: ignore[valid-type]

    @dg.op(name="replay_op", out=COUNTS)
    def replay_range(context: dg.OpExecutionContext, config: ReplayConfig) -> None:
        stream_context = context_of(config.stream, contexts)
        with told_in_a_line():
            request = ReplayRequest(
                config.partition,
                config.from_offset,
                config.to_offset,
                from_time=_time(config.from_time),
                to_time=_time(config.to_time),
            )
            replay_ranges = ranges(request, stream_context)
            for replay_range in replay_ranges:
                context.log.info(
                    f"partition {replay_range.partition}: offsets {replay_range.start} to {replay_range.stop - 1}"
                )
            with StopRequest(context.instance, context.run_id) as stop:
                done = run_replay(replay_ranges, stream_context, stop=stop.reason)
        counts = asdict(done)
        context.log.info(", ".join(f"{count:,} {what}" for what, count in counts.items()))
        context.add_output_metadata(counts)
        if stop.reason() == EndReason.TERMINATED:
            raise dg.DagsterExecutionInterruptedError

    return one_op_job(
        replay_range, "replay", "Read a range from Kafka again and store the missing rows. Positions stay."
    )


def _time(text: str) -> datetime | None:
    """Raises dagster.Failure for a text that is no timestamp."""
    if not text:
        return None
    try:
        return parse_instant(text)
    except ValueError as error:
        raise dg.Failure(description=f"{text!r}: {error}", allow_retries=False) from None

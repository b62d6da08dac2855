"""Replay missing rows from the UI. The CLI makes the same calls."""

from dataclasses import asdict

import dagster as dg
from pydantic import Field

from ...core.end_reasons import EndReason
from ...core.replay import Range
from ...operations.replays import ReplayRequest, ranges, run_replay
from ...operations.stream_context import StreamContext
from ..run.stop_signal import StopRequest
from .operation import Operation, Outcome, optional_time


class ReplayConfig(dg.Config):
    """A range of offsets of one partition, or of times of one or all."""

    partition: int | None = Field(default=None, description="Needed with offsets. With times the default is all.")
    from_offset: int | None = Field(default=None, description="The first offset.")
    to_offset: int | None = Field(default=None, description="The offset behind the last one.")
    from_time: str = Field(default="", description="ISO 8601, by Kafka's timestamps. UTC without a zone.")
    to_time: str = Field(default="", description="Up to, but not including.")


def _ranges(stream_context: StreamContext, config: ReplayConfig) -> list[Range]:
    request = ReplayRequest(
        config.partition,
        config.from_offset,
        config.to_offset,
        from_time=optional_time(config.from_time),
        to_time=optional_time(config.to_time),
    )
    return ranges(request, stream_context)


def _lines(replay_ranges: list[Range]) -> list[str]:
    return [
        f"partition {offsets.partition}: offsets {offsets.start} to {offsets.stop - 1}" for offsets in replay_ranges
    ]


def _would_replay(stream_context: StreamContext, config: ReplayConfig) -> Outcome:
    replay_ranges = _ranges(stream_context, config)
    return Outcome(_lines(replay_ranges), {"offsets": sum(offsets.stop - offsets.start for offsets in replay_ranges)})


def _replay(stream_context: StreamContext, config: ReplayConfig, context: dg.OpExecutionContext) -> Outcome:
    replay_ranges = _ranges(stream_context, config)
    for line in _lines(replay_ranges):
        context.log.info(line)
    with StopRequest(context.instance, context.run_id) as stop:
        counts = asdict(run_replay(replay_ranges, stream_context, stop=stop.reason))
    lines = [", ".join(f"{count:,} {what}" for what, count in counts.items())]
    return Outcome(lines, counts, interrupted=stop.reason() == EndReason.TERMINATED)


REPLAY = Operation(
    "replay",
    "Read a range from Kafka again and store the missing rows. Rows that exist, positions and counters stay.",
    ReplayConfig,
    look=_would_replay,
    act=_replay,
)

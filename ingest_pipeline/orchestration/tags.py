"""Run tags and names: what the Runs page can be filtered by, and how sensor and run agree on what a run is for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..core.stream import Stream
from ..operations.names import job_name as job_name
from ..operations.names import sensor_name as sensor_name
from ..settings import Settings

STREAM = "ingest/stream"
SHARD = "ingest/shard"
DEFINITION = "ingest/stream_definition"
SUCCESSOR = "ingest/successor"
ENDED = "ingest/ended"
ROWS = "ingest/rows"
PID = "ingest/pid"
OPENING = "ingest/opening_seconds"
"""How long the run took from its first line to its session with PostgreSQL."""
JOB = "ingest/job"
"""Which of OTHER_JOBS a run is of. A job of another project may have the same name, but not the tag."""
MAX_RUNTIME = "dagster/max_runtime"

OTHER_JOBS = ("maintenance", "pause_stream", "resume_stream", "redrive_dead_letters", "replay")
"""This package's jobs that drain nothing."""
BY_HAND = "__ASSET_JOB"
"""Dagster's name for the job behind the Materialize button."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The share `index` of `count` of a stream's partitions. Written k/n."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def partitions(self, all_partitions: Iterable[int]) -> list[int]:
        """Those of the partitions that belong to this shard, in order."""
        return sorted(partition for partition in all_partitions if partition % self.count == self.index)


def shard_of(tags: Mapping[str, str]) -> Shard | None:
    """The shard a run was launched for; None for one launched by hand."""
    index, _, count = tags.get(SHARD, "").partition("/")
    return Shard(int(index), int(count)) if index.isdigit() and count.isdigit() and int(count) else None


def shards(count: int) -> list[Shard]:
    return [Shard(index, count) for index in range(count)]


def definition_of(stream: Stream, settings: Settings) -> str:
    """A hash of the stream and its settings; secrets are masked before they are hashed."""
    return stream.definition(repr(settings.for_stream(stream.name)), repr(settings.kafka), settings.database_schema)


def outcome_of(run_tags: Mapping[str, str], stream: Stream) -> str:
    """How the run of this stream ended, "" where none has; one launched by hand has it for each of its streams."""
    return run_tags.get(f"{ENDED}/{stream.name}") or run_tags.get(ENDED, "")

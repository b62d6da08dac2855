"""Run tags and names. The sensor describes a run's task in tags, and users filter the Runs page by tags."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dagster._core.storage.tags import EXTERNALLY_MANAGED_ASSETS_TAG

from ..core.stream import Stream
from ..operations.names import job_name as job_name
from ..operations.names import sensor_name as sensor_name
from ..settings import Settings
from ..settings.job_settings import JobSettings
from ..settings.kafka import KafkaProperties

STREAM = "ingest/stream"
DRAINS = "ingest/drains"
"""The job of a sensor's run. A job whose only stream has the job's name puts the name into STREAM instead."""
SHARD = "ingest/shard"
DEFINITION = "ingest/stream_definition"
SUCCESSOR = "ingest/successor"
ENDED = "ingest/ended"
ROWS = "ingest/rows"
FAILED_STREAMS = "ingest/failed_streams"
"""The streams whose own failure made the run fail, separated by commas. Absent after a failure of the whole run."""
PID = "ingest/pid"
OPENING = "ingest/opening_seconds"
"""Seconds from the run's start to its session with PostgreSQL."""
JOB = "ingest/job"
"""The name of a job of this package that drains nothing. Jobs of other projects may share the name but not the tag."""
MAX_RUNTIME = "dagster/max_runtime"
KUBERNETES = "dagster-k8s/config"
DEFER_ASSET_EVENTS = EXTERNALLY_MANAGED_ASSETS_TAG
"""Dagster writes no event for the planned assets of such a run, and none for its results."""

DRY_RUN = "ingest/dry_run"
"""Set for a run of an operator's job that only looked."""

BY_HAND = "__ASSET_JOB"
"""Dagster's name for the job behind the Materialize button."""
_OF_A_MACHINE = ("client.id", "client.rack")
"""Properties of Kafka that differ between the workers of a deployment. No worker is outdated for them."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index` of `count` of a stream's partitions, written index/count."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def partitions(self, all_partitions: Iterable[int], stream_number: int = 0) -> list[int]:
        """The shard's share of a stream's partitions. The shares of the job's streams begin at different shards.

        Args:
            stream_number: the stream's place among the streams of its job, ordered by name.
        """
        share = (self.index - stream_number) % self.count
        return sorted(partition for partition in all_partitions if partition % self.count == share)


def shard_of(tags: Mapping[str, str]) -> Shard | None:
    """The run's shard. None for a run by hand."""
    index, _, count = tags.get(SHARD, "").partition("/")
    return Shard(int(index), int(count)) if index.isdigit() and count.isdigit() and int(count) else None


def shards(count: int) -> list[Shard]:
    return [Shard(index, count) for index in range(count)]


def definition_of(stream: Stream, settings: Settings) -> str:
    """A hash of the stream and its settings, with its job's. Secrets are masked before hashing."""
    kafka = {name: value for name, value in settings.kafka.items() if name not in _OF_A_MACHINE}
    own = (settings.for_stream(stream.name), settings.for_job(stream.job), KafkaProperties(kafka))
    return stream.definition(*map(repr, own), settings.database_schema)


def definition_of_job(streams: Sequence[Stream], settings: Settings) -> str:
    """A hash of all streams of a job. For one stream the hash of the stream."""
    definitions = [definition_of(stream, settings) for stream in streams]
    if len(definitions) == 1:
        return definitions[0]
    return hashlib.sha256(" ".join(definitions).encode()).hexdigest()[:12]


def drain_tags(job: str, streams: Sequence[Stream]) -> dict[str, str]:
    """The tag that names the job of a sensor's run. A run of several streams writes their events itself, because
    Dagster would write one for every planned asset, which takes 17 ms each in SQLite."""
    named = {STREAM if [stream.name for stream in streams] == [job] else DRAINS: job}
    return named | ({DEFER_ASSET_EVENTS: "true"} if len(streams) > 1 else {})


def kubernetes_tags(settings: JobSettings) -> dict[str, str]:
    """The resources of a run's pod, for Dagster's Kubernetes launcher. Other launchers ignore the tag."""
    memory = {"memory": settings.run_memory} if settings.run_memory else {}
    requests = {"cpu": settings.run_cpu, **memory} if settings.run_cpu else memory
    resources = {"requests": requests, "limits": memory}
    return {KUBERNETES: json.dumps({"container_config": {"resources": resources}})} if requests else {}


def drained_job(run_tags: Mapping[str, str]) -> str | None:
    """The job a sensor's run drains. None for a run without streams."""
    return run_tags.get(DRAINS) or run_tags.get(STREAM)


def failed_streams(run_tags: Mapping[str, str]) -> list[str]:
    """The streams whose own failure made the run fail. Empty: the whole run failed."""
    return [name for name in run_tags.get(FAILED_STREAMS, "").split(",") if name]


def outcome_of(run_tags: Mapping[str, str], stream: Stream) -> str:
    """The stream's end reason in this run. "" before the end, and after a failure of other streams of the job. A run
    by hand has a tag for every stream."""
    failed = failed_streams(run_tags)
    common = run_tags.get(ENDED, "") if not failed or stream.name in failed else ""
    return run_tags.get(f"{ENDED}/{stream.name}") or common

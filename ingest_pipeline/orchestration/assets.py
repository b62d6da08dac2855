"""One asset for each stream, downstream of an external asset for its topic. The streams of a job share an op."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import dagster as dg

from ..operations.stream_context import StreamContext
from . import tags
from .asset_keys import asset_key, topic_key
from .described import freshness, table_metadata
from .job_checks import newest_outcomes


def topic_spec(stream_context: StreamContext, group: str) -> dg.AssetSpec:
    description = f"Kafka topic {stream_context.stream.topic}."
    return dg.AssetSpec(topic_key(stream_context), group_name=group, kinds={"kafka"}, description=description)


def table_spec(stream_context: StreamContext, group: str) -> dg.AssetSpec:
    stream, clients = stream_context.stream, stream_context.clients
    return dg.AssetSpec(
        asset_key(stream_context),
        deps=[topic_key(stream_context)],
        group_name=group,
        kinds={"postgres"},
        owners=list(stream.owners),
        tags=dict(stream.tags),
        freshness_policy=freshness(stream, clients.settings),
        description=stream.description or f"Events of topic {stream.topic}.",
        metadata={
            **table_metadata(stream, clients.settings),
            "topic": stream.topic,
            "group_id": clients.group_id(stream),
        },
        skippable=True,
    )


def job_assets(job: str, stream_contexts: Sequence[StreamContext], group: str) -> dg.AssetsDefinition:
    """The tables of a job. By hand, materializing drains the selected topics up to now. The sensor's run drains one
    shard of them all."""
    by_key = {asset_key(stream_context): stream_context for stream_context in stream_contexts}

    @dg.multi_asset(
        name=job if len(stream_contexts) > 1 else "__".join(asset_key(stream_contexts[0]).path),
        specs=[table_spec(stream_context, group) for stream_context in stream_contexts],
        can_subset=len(stream_contexts) > 1,
    )
    def drain(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        selected = {key: by_key[key] for key in by_key if key in context.selected_asset_keys}
        yield from _drained(context, selected, stream_contexts)

    return drain


def _drained(
    context: dg.AssetExecutionContext,
    selected: Mapping[dg.AssetKey, StreamContext],
    stream_contexts: Sequence[StreamContext],
) -> Iterator[dg.MaterializeResult[Any]]:
    from .run.drained_stream import DrainedStream
    from .run.job_run import JobRun
    from .run.journal import Journal
    from .run.log import run_logger
    from .run.stop_signal import StopRequest

    clients = stream_contexts[0].clients
    log = run_logger(clients.settings.log_format)
    journal = Journal(context, clients.clock, log)
    stop = StopRequest(context.instance, context.run.run_id)
    numbers = {stream_context.stream.name: number for number, stream_context in enumerate(stream_contexts)}
    outcomes = cache(partial(newest_outcomes, context.instance, list(selected)))
    streams = [
        DrainedStream(
            stream_context,
            key,
            journal=journal,
            log=log,
            stop=stop.reason,
            share=partial(_share, tags.shard_of(context.run.tags), numbers[stream_context.stream.name]),
            neighbours=len(selected) - 1,
            last_passed=partial(_last_passed, outcomes, key),
        )
        for key, stream_context in selected.items()
    ]
    yield from JobRun(context.run, streams, journal, stop).results()


def _last_passed(
    outcomes: Callable[[], Mapping[dg.AssetCheckKey, bool | None]], key: dg.AssetKey, check: str
) -> bool | None:
    return outcomes().get(dg.AssetCheckKey(key, check))


def _share(shard: tags.Shard | None, stream_number: int, partitions: Collection[int]) -> list[int]:
    """A run by hand takes all partitions that are free."""
    return sorted(partitions) if shard is None else shard.partitions(partitions, stream_number)

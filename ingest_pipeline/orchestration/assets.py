"""One asset for each stream, downstream of an external asset for its topic."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ..operations.stream_context import StreamContext
from .asset_keys import asset_key, topic_key
from .described import freshness, table_metadata


def topic_spec(stream_context: StreamContext, group: str) -> dg.AssetSpec:
    """The topic as an external asset."""
    description = f"Kafka topic {stream_context.stream.topic}."
    return dg.AssetSpec(topic_key(stream_context), group_name=group, kinds={"kafka"}, description=description)


def stream_asset(stream_context: StreamContext, group: str) -> dg.AssetsDefinition:
    """The table as an asset. By hand, materializing drains the topic up to now. The sensor's run drains one shard of
    it."""
    stream, clients = stream_context.stream, stream_context.clients

    @dg.asset(
        key=asset_key(stream_context),
        deps=[topic_key(stream_context)],
        group_name=group,
        kinds={"kafka", "postgres"},
        owners=list(stream.owners) or None,
        tags=dict(stream.tags),
        freshness_policy=freshness(stream, clients.settings),
        description=stream.description or f"Events of topic {stream.topic}.",
        metadata={
            **table_metadata(stream, clients.settings),
            "topic": stream.topic,
            "group_id": clients.group_id(stream),
        },
        output_required=False,
    )
    def drain(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        from .run.drained_stream import DrainedStream
        from .run.journal import Journal
        from .run.log import run_logger
        from .run.stop_signal import StopRequest
        from .run.stream_run import StreamRun

        log = run_logger(clients.settings.log_format)
        journal = Journal(context, clients.clock, log)
        drained = DrainedStream(stream_context, context.asset_key, journal, log)
        stop = StopRequest(context.instance, context.run.run_id)
        yield from StreamRun(context.run, drained, journal, stop).results()

    return drain

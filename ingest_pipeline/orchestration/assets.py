"""One asset a stream, downstream of an external asset for its topic."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from ..core.stream import Stream
from ..operations.clients import Clients
from .asset_keys import asset_key, topic_key
from .described import freshness, table_metadata


def topic_spec(stream: Stream, key_prefix: Sequence[str], group: str) -> dg.AssetSpec:
    """The topic, which somebody else fills."""
    return dg.AssetSpec(
        topic_key(stream, key_prefix), group_name=group, kinds={"kafka"}, description=f"Kafka topic {stream.topic}."
    )


def stream_asset(stream: Stream, clients: Clients, key_prefix: Sequence[str], group: str) -> dg.AssetsDefinition:
    """The table. Materializing it drains the topic: all of it up to now by hand, a shard of it from the sensor."""
    settings = clients.settings

    @dg.asset(
        key=asset_key(stream, key_prefix),
        deps=[topic_key(stream, key_prefix)],
        group_name=group,
        kinds={"kafka", "postgres"},
        owners=list(stream.owners) or None,
        tags=dict(stream.tags),
        freshness_policy=freshness(stream, settings),
        description=stream.description or f"Events of topic {stream.topic}.",
        metadata={
            **table_metadata(stream, settings),
            "topic": stream.topic,
            "group_id": clients.group_id(stream),
        },
        output_required=False,
    )
    def drain(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        from .run.stream_run import StreamRun

        yield from StreamRun(context, stream, clients).results()

    return drain

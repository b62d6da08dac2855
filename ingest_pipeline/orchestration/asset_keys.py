"""The asset keys of a stream: its table and its topic."""

import dagster as dg

from ..operations.stream_context import StreamContext


def topic_key(stream_context: StreamContext) -> dg.AssetKey:
    return dg.AssetKey([*stream_context.key_prefix, "kafka", stream_context.stream.topic_asset_name])


def asset_key(stream_context: StreamContext) -> dg.AssetKey:
    return dg.AssetKey([*stream_context.key_prefix, stream_context.stream.name])

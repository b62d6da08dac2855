"""The asset keys of a stream: its table and its topic."""

from collections.abc import Sequence

import dagster as dg

from ..core.stream import Stream


def topic_key(stream: Stream, key_prefix: Sequence[str]) -> dg.AssetKey:
    return dg.AssetKey([*key_prefix, "kafka", stream.topic_asset_name])


def asset_key(stream: Stream, key_prefix: Sequence[str]) -> dg.AssetKey:
    return dg.AssetKey([*key_prefix, stream.name])

"""Several streams: names that must be unique among them."""

from __future__ import annotations

from collections.abc import Iterable

from .column_names import index_names
from .errors import SettingsError
from .stream import Stream


def by_name(streams: Iterable[Stream]) -> dict[str, Stream]:
    """The streams by name.

    Raises:
        SettingsError: an item is no Stream, or two streams share a name, a topic, a topic asset, a table or the name
            of a table and an index.
    """
    accepted: dict[str, Stream] = {}
    for number, stream in enumerate(streams, 1):
        if not isinstance(stream, Stream):
            raise SettingsError(f"item {number} of STREAMS is {stream!r:.80}, not Stream(name, Struct)")
        for other in accepted.values():
            for attribute in ("name", "topic", "table"):
                if getattr(stream, attribute) == getattr(other, attribute):
                    raise SettingsError(
                        f"streams {other.name} and {stream.name} share the {attribute} {getattr(stream, attribute)!r}"
                    )
            for first, second in ((stream, other), (other, stream)):
                if first.table in index_names(second.table):
                    raise SettingsError(
                        f"stream {first.name}: the table {first.table!r} has the name of an index of stream"
                        f" {second.name}'s table: give one of the tables another name"
                    )
            if (shared := stream.topic_asset_name) == other.topic_asset_name:
                raise SettingsError(
                    f"streams {other.name} and {stream.name} share the topic asset {shared!r}: give one of them"
                    f' another, such as Stream(..., topic_asset="{shared}_2")'
                )
        accepted[stream.name] = stream
    return accepted

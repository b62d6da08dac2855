"""Several streams: their unique names and the jobs that drain them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from .column_names import index_names
from .errors import SettingsError
from .stream import Stream


@dataclass(frozen=True, slots=True)
class Job:
    """The streams that share runs and a sensor.

    Attributes:
        streams: ordered by name.
    """

    name: str
    streams: tuple[Stream, ...]


def jobs_of(streams: Iterable[Stream]) -> list[Job]:
    """The streams' jobs, ordered by name.

    Raises:
        SettingsError: a stream and a job of other streams share a name, which would be the prefix of both settings.
    """
    members: defaultdict[str, list[Stream]] = defaultdict(list)
    names = set[str]()
    for stream in sorted(streams, key=lambda stream: stream.name):
        members[stream.job].append(stream)
        names.add(stream.name)
    for name in sorted(members.keys() & names):
        others = [stream.name for stream in members[name] if stream.name != name]
        if others:
            raise SettingsError(
                f"stream {others[0]}: its job has the name of stream {name}: give the job a name that no stream has,"
                f' such as job="{name}_job"'
            )
    return [Job(name, tuple(members[name])) for name in sorted(members)]


def by_name(streams: Iterable[Stream]) -> dict[str, Stream]:
    """The streams by name.

    Raises:
        SettingsError: an item is no Stream, or two streams share a name, a topic, a topic asset, a table or the name
            of a table and an index, or a stream and a job of other streams share a name.
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
                schema, table = second.table_name
                if first.table_name in {(schema, name) for name in index_names(table)}:
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
    jobs_of(accepted.values())
    return accepted

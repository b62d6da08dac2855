"""Several streams: their unique names and their jobs."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from .column_names import TableName, index_names
from .errors import SettingsError
from .stream import Stream


@dataclass(frozen=True, slots=True)
class Job:
    """The streams that share runs and a sensor, ordered by name."""

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


def tables_of(streams: Iterable[Stream]) -> list[Stream]:
    return [table for stream in streams for table in stream.tables]


def by_name(streams: Iterable[Stream]) -> dict[str, Stream]:
    """The streams by name.

    Raises:
        SettingsError: an item is no Stream. Two streams share a name, a topic or a topic asset, or a table that they
            cannot share. A table has the name of another table's index. A stream has the name of other streams' job.
    """
    accepted: dict[str, Stream] = {}
    taken: dict[tuple[str, object], Stream] = {}
    for number, stream in enumerate(streams, 1):
        if not isinstance(stream, Stream):
            raise SettingsError(f"item {number} of STREAMS is {stream!r:.80}, not Stream(name, Struct)")
        for attribute in ("name", "topic"):
            value = getattr(stream, attribute)
            if other := taken.get((attribute, value)):
                raise SettingsError(f"streams {other.name} and {stream.name} share the {attribute} {value!r}")
            taken[attribute, value] = stream
        for table in stream.tables:
            _take_table(table, taken)
        asset = stream.topic_asset_name
        if other := taken.get(("topic asset", asset)):
            raise SettingsError(
                f"streams {other.name} and {stream.name} share the topic asset {asset!r}: give one of them"
                f' another, such as Stream(..., topic_asset="{asset}_2")'
            )
        taken["topic asset", asset] = stream
        accepted[stream.name] = stream
    jobs_of(accepted.values())
    return accepted


def check_shared(first: Stream, second: Stream, table: TableName) -> None:
    """Raises SettingsError if the two streams cannot share the table.

    The topic in the primary key keeps the rows of the streams apart: for a redrive, a replay and the rates.
    """
    share = f"streams {first.name} and {second.name} share the table {table}"
    if first.name == second.name:
        raise SettingsError(f"stream {first.name}: route names the table {table} twice, with and without its schema")
    if first.key or second.key:
        raise SettingsError(f"{share}, and records of two topics have no order, so the newest of a key is not known")
    if first.coordinates and not (first.topic_column and second.topic_column):
        raise SettingsError(
            f'{share}: declare both with topic_column="kafka_topic", which keeps their rows apart, or give one of them'
            " another table"
        )
    for option in ("coordinates", "partition_by", "keep", "allow_unlogged", "primary_key"):
        if getattr(first, option) != getattr(second, option):
            raise SettingsError(f"{share} and differ in {option.replace('_key', ' key')}")
    if set(first.table_columns) != set(second.table_columns):
        raise SettingsError(f"{share} and declare different columns")


def _take_table(stream: Stream, taken: dict[tuple[str, object], Stream]) -> None:
    schema, table = stream.table_name
    indexes = [(schema, name) for name in index_names(table)]
    if other := taken.get(("relation", stream.table_name)):
        check_shared(other, stream, stream.table_name)
        return
    if other := taken.get(("index", stream.table_name)):
        raise _table_and_index(stream, other)
    if other := next(filter(None, (taken.get(("relation", index)) for index in indexes)), None):
        raise _table_and_index(other, stream)
    taken["relation", stream.table_name] = stream
    taken.update({("index", index): stream for index in indexes})


def _table_and_index(stream: Stream, other: Stream) -> SettingsError:
    return SettingsError(
        f"stream {stream.name}: the table {stream.table!r} has the name of an index of stream {other.name}'s table:"
        " give one of the tables another name"
    )

"""One asset a stream, downstream of an external asset for its topic."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from ..core.stream import Stream, quoted
from ..settings import Settings
from .connections import Connections

_KAFKA_COLUMNS = (
    ("kafka_incarnation", "smallint", "One more each time the partition's offsets began anew", False),
    ("kafka_partition", "integer", "Where the record came from", False),
    ("kafka_offset", "bigint", "Where in the partition", False),
)
_TIME_COLUMNS = (
    ("kafka_timestamp", "timestamp with time zone", "The record's own time; null where Kafka has none", True),
    ("ingested_at", "timestamp with time zone", "When the transaction that stored the row began", False),
)
_NEWEST_ROWS = """SELECT * FROM {table}
WHERE event_time > now() - interval '10 minutes'
ORDER BY event_time DESC LIMIT 50;"""
_OPEN_LETTERS = """SELECT id, kafka_partition, kafka_offset, stage, sqlstate, reason, failed_at
FROM {ledger}.dead_letter
WHERE stream = '{stream}' AND status = 'open'
ORDER BY id DESC LIMIT 50;"""


def topic_key(stream: Stream, key_prefix: Sequence[str]) -> dg.AssetKey:
    return dg.AssetKey([*key_prefix, "kafka", *_key_parts(stream.topic)])


def asset_key(stream: Stream, key_prefix: Sequence[str]) -> dg.AssetKey:
    return dg.AssetKey([*key_prefix, stream.name])


def topic_spec(stream: Stream, key_prefix: Sequence[str], group: str) -> dg.AssetSpec:
    """The topic, which somebody else fills."""
    return dg.AssetSpec(
        topic_key(stream, key_prefix), group_name=group, kinds={"kafka"}, description=f"Kafka topic {stream.topic}."
    )


def stream_asset(
    stream: Stream, connections: Connections, key_prefix: Sequence[str], group: str
) -> dg.AssetsDefinition:
    """The table. Materializing it drains the topic: all of it up to now by hand, a shard of it from the sensor."""
    settings = connections.settings

    @dg.asset(
        key=asset_key(stream, key_prefix),
        deps=[topic_key(stream, key_prefix)],
        group_name=group,
        kinds={"kafka", "postgres"},
        owners=list(stream.owners) or None,
        tags=stream.tags,
        freshness_policy=_freshness(stream, settings.for_stream(stream.name).run_max_seconds),
        description=(stream.event.__doc__ or f"Events of topic {stream.topic}.").strip(),
        metadata={
            "dagster/table_name": f"{settings.database_schema}.{stream.table}",
            "dagster/column_schema": dg.TableSchema(columns=_columns(stream)),
            "newest_rows": _sql(_NEWEST_ROWS, stream, settings),
            "open_dead_letters": _sql(_OPEN_LETTERS, stream, settings),
            "topic": stream.topic,
            "group_id": connections.group_id(stream),
        },
        output_required=False,
    )
    def drain(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        from .run import StreamRun

        yield from StreamRun(context, stream, connections).results()

    return drain


def _columns(stream: Stream) -> list[dg.TableColumn]:
    own = [(item.name, item.pg_type, item.description, item.nullable) for item in stream.fields]
    return [
        dg.TableColumn(name, kind, description, constraints=dg.TableColumnConstraints(nullable=nullable))
        for name, kind, description, nullable in (*_KAFKA_COLUMNS, *own, *_TIME_COLUMNS)
    ]


def _freshness(stream: Stream, run_max_seconds: float) -> dg.FreshnessPolicy | None:
    """A materialization comes with a run's end, so the newest may be older than the newest row by a run's age."""
    if stream.max_silence is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=stream.max_silence + timedelta(seconds=run_max_seconds))


def _sql(query: str, stream: Stream, settings: Settings) -> dg.MetadataValue[Any]:
    """A query to paste into psql, as Markdown."""
    table = f"{quoted(settings.database_schema)}.{quoted(stream.table)}"
    said = query.format(table=table, ledger=quoted(settings.ledger_schema), stream=stream.name)
    return dg.MetadataValue.md(f"```sql\n{said}\n```")


def _key_parts(topic: str) -> list[str]:
    """Dagster allows letters, digits and _ in an asset key's parts."""
    return ["".join(c if c.isalnum() or c == "_" else "_" for c in topic)]

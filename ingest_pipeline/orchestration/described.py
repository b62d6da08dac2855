"""Describes a table asset before any run: columns, queries to paste, freshness."""

from typing import Any

import dagster as dg

from ..core.choices import ReportAs
from ..core.errors import SettingsError
from ..core.stream import Stream
from ..postgres.queries import newest_rows, open_dead_letters
from ..settings import Settings

_RUN_SECONDS = 60
"""Allowance beyond a run's maximum age for the time between the ends of two consecutive runs."""
_OWN = {
    "kafka_incarnation": "1, and one more after each topic that was made again or cut: its offsets are used again.",
    "kafka_partition": "The partition the record was read from.",
    "kafka_offset": "The record's offset in its partition.",
    "kafka_ordinal": "The row's number among the rows of its record, from 0.",
    "kafka_timestamp": "The record's own time, set by its producer or by the broker. Null where Kafka has none.",
    "ingested_at": "When the transaction that stored the row began.",
}
"""Column → description, for the columns of every table."""


def table_metadata(stream: Stream, settings: Settings) -> dict[str, Any]:
    """The tables' names and columns, and queries as Markdown code blocks."""
    events, ledger = settings.database_schema, settings.ledger_schema
    names = [str(table.table_name.within(events)) for table in stream.tables]
    columns = "dagster/column_schema" if stream.route is None else "columns of {}"
    queries = (newest_rows(table, events, ledger) for table in stream.tables)
    return {
        "dagster/table_name": ", ".join(names),
        **{columns.format(name): column_schema(table) for name, table in zip(names, stream.tables, strict=True)},
        **({"newest_rows_sql": _code("\n\n".join(queries))} if stream.coordinates else {}),
        "open_dead_letters_sql": _code(open_dead_letters(stream, ledger)),
    }


def column_schema(stream: Stream) -> dg.TableSchema:
    key = f"PRIMARY KEY ({', '.join(stream.primary_key)})"
    descriptions = (_OWN if stream.coordinates else {}) | {item.name: item.description for item in stream.fields}
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                column.pg_type,
                descriptions.get(column.name),
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in stream.table_columns
        ],
        constraints=dg.TableConstraints(other=[key] if stream.coordinates else []),
    )


def freshness(stream: Stream, settings: Settings) -> dg.FreshnessPolicy | None:
    """Stale after `max_silence` without a materialization. None without a declared `max_silence`.

    Raises:
        SettingsError: a busy stream would turn stale, because a run materializes only at its end.
    """
    if stream.max_silence is None:
        return None
    own = settings.for_stream(stream.name)
    name, longest = (
        ("REPORT_SECONDS", own.report_seconds)
        if own.report_as == ReportAs.MATERIALIZATION
        else ("RUN_MAX_SECONDS", settings.for_job(stream.job).run_max_seconds)
    )
    if stream.max_silence.total_seconds() < longest + _RUN_SECONDS:
        raise SettingsError(
            f"stream {stream.name}: max_silence is {stream.max_silence}, but a busy stream materializes every"
            f" {longest} s ({name}): declare at least {longest + _RUN_SECONDS} s, or lower {name}"
        )
    return dg.FreshnessPolicy.time_window(fail_window=stream.max_silence)


def _code(query: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"```sql\n{query}\n```")

"""What `maintenance` deletes beside runs: old events of Dagster, settled dead letters and old partitions."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._core.instance import RUNLESS_RUN_ID

from ...operations.clients import Clients
from ...operations.stream_context import StreamContext
from .operation import told_in_a_line

_PAGE = 500


def purge_events(instance: dg.DagsterInstance, assets: Collection[dg.AssetKey], before: float) -> int:
    """The number of deleted evaluations of checks and events without a run, which Dagster does not delete with a run.

    The newest evaluation of every check and the newest event of every kind stay, and everything after `before`, in Unix
    time.
    """
    # Here, as they bring SQLAlchemy along, which loading the definitions does not need.
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
    from dagster._core.storage.sqlalchemy_compat import db_select

    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    keys = [key.to_string() for key in assets]
    limit = datetime.fromtimestamp(before, UTC).replace(tzinfo=None)  # both tables have UTC without a zone
    checks, events = AssetCheckExecutionsTable.c, SqlEventLogStorageTable.c
    columns = [
        checks.asset_key,
        checks.check_name,
        checks.id,
        checks.evaluation_event_storage_id,
        checks.create_timestamp,
    ]
    without_run = events.run_id == RUNLESS_RUN_ID
    of_assets = without_run & events.asset_key.in_(keys)
    with storage.index_connection() as connection:
        rows = connection.execute(db_select(columns).where(checks.asset_key.in_(keys)).order_by(checks.id)).fetchall()
        newest = set({(key, name): row_id for key, name, row_id, _, _ in rows}.values())
        old = [
            (row_id, event_id) for _, _, row_id, event_id, created in rows if created < limit and row_id not in newest
        ]
        for page in (old[start : start + _PAGE] for start in range(0, len(old), _PAGE)):
            event_ids = [event_id for _, event_id in page if event_id is not None]  # these events name no asset
            connection.execute(AssetCheckExecutionsTable.delete().where(checks.id.in_([row_id for row_id, _ in page])))
            connection.execute(SqlEventLogStorageTable.delete().where(without_run & events.id.in_(event_ids)))
        select = db_select([events.asset_key, events.dagster_event_type, events.id]).where(of_assets)
        kept = {(key, kind): event_id for key, kind, event_id in connection.execute(select.order_by(events.id))}
        expired = of_assets & (events.timestamp < limit) & events.id.not_in(list(kept.values()))
        deleted = connection.execute(SqlEventLogStorageTable.delete().where(expired))
    return len(old) + int(deleted.rowcount)


def purge_op(clients: Clients, stream_contexts: Sequence[StreamContext]) -> dg.OpDefinition:
    """The op of `maintenance` that purges settled letters of these streams. Letters of other code locations' streams
    stay, even in the same ledger."""
    days = clients.settings.settled_letter_retention_days

    @dg.op(name="purge_settled_letters", description=f"Delete dead letters that were settled over {days} days ago.")
    def purge_settled_letters(context: dg.OpExecutionContext) -> None:
        from ...postgres.letter_retention import SettledLetters

        with told_in_a_line():
            for stream_context in stream_contexts:
                if not stream_context.ledger.positions():
                    continue
                name = stream_context.stream.name
                settled = SettledLetters(clients.database(), stream_context.stream)
                context.log.info(f"purged {settled.purge(days):,} settled dead letters of {name}")
                if missing := settled.missing():
                    context.log.warning(
                        f"{missing:,} settled dead letters of {name} are gone though nothing purged them: the"
                        " ledger's counters of settled letters and its rows do not add up"
                    )

    return purge_settled_letters


def partitions_op(clients: Clients, stream_contexts: Sequence[StreamContext]) -> dg.OpDefinition:
    """The op of `maintenance` for the tables with partition_by."""

    @dg.op(name="maintain_partitions", description="Make partitions ahead, and drop those that are older than keep.")
    def maintain_partitions(context: dg.OpExecutionContext) -> None:
        from ...postgres.partitions import maintain

        with told_in_a_line():
            for stream_context in stream_contexts:
                if stream_context.stream.partition_by and stream_context.ledger.positions():
                    for table in stream_context.stream.tables:
                        context.log.info(maintain(clients.database(), table))

    return maintain_partitions

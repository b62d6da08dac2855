"""Deletes old evaluations of checks, and old events without a run. Dagster deletes neither with a run."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import dagster as dg
from dagster._core.instance import RUNLESS_RUN_ID

_PAGE = 500


def purge_events(instance: dg.DagsterInstance, assets: Collection[dg.AssetKey], before: float) -> int:
    """The number of deleted evaluations and events of the assets. The newest of every check and every kind stay.

    Args:
        before: Unix time. Younger evaluations and events stay.
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

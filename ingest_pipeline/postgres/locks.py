"""Session-level advisory locks decide who may write. The writing connection itself holds them.

A key is 64 bits of (oid of the position table, stream, partition, kind). The owner holds the exclusive lock of kind
"own". A waiting run holds a shared lock whose kind is its handover request. Waiting runs poll, because a blocked lock
call would hold back VACUUM.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from ..core.ledger import HandoverRequest, Holder
from .copy_progress import CopyLooks, CopyProgress
from .database import APPLICATION_PREFIX
from .queries import quoted

_HOLDERS = text("""
    SELECT ((l.classid::bigint << 32) | l.objid::bigint) AS key, a.pid, a.backend_start, a.application_name,
           a.state_change, a.state_change < now() - make_interval(secs => :frozen) AS silent,
           coalesce(a.wait_event_type = 'Client', false) AS waits_for_client, c.bytes_processed, c.tuples_processed
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid LEFT JOIN pg_stat_progress_copy c ON c.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((l.classid::bigint << 32) | l.objid::bigint) = ANY(:keys)""")
_END_FROZEN = text("""
    SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a LEFT JOIN pg_stat_progress_copy c ON c.pid = a.pid
    WHERE a.pid = :pid AND a.backend_start = :backend_start AND a.state_change = :state_change
      AND a.wait_event_type = 'Client' AND c.bytes_processed IS NOT DISTINCT FROM CAST(:bytes_processed AS bigint)
      AND c.tuples_processed IS NOT DISTINCT FROM CAST(:tuples_processed AS bigint)""")
_END_BACKEND = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = :pid AND backend_start = :backend_start""")
_PRESENT = text("""
    SELECT application_name FROM pg_stat_activity
    WHERE datname = current_database() AND starts_with(application_name, :prefix)""")
LockKind = HandoverRequest | Literal["own"]
_OWN: Literal["own"] = "own"
_SELF = text("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")


@dataclass(frozen=True, slots=True)
class Backend:
    """A server process. The start time distinguishes processes that used the same pid."""

    pid: int
    backend_start: object


class LockKeys:
    def __init__(self, position_table_oid: int, stream: str) -> None:
        self._oid, self._stream = position_table_oid, stream

    def key(self, kind: LockKind, partition: int) -> int:
        """A signed 64-bit key, as pg_advisory_lock takes it."""
        text_key = f"{self._oid}/{self._stream}/{partition}/{kind}".encode()
        return int.from_bytes(hashlib.blake2b(text_key, digest_size=8).digest(), "big", signed=True)


def position_table_oid(connection: Connection, ledger_schema: str) -> int:
    """For LockKeys: two ledgers in a database have different keys."""
    name = f"{quoted(ledger_schema)}.position"
    return int(connection.execute(text("SELECT to_regclass(:name)::oid::bigint"), {"name": name}).scalar_one())


def try_own(connection: Connection, keys: LockKeys, partitions: Collection[int], exact: bool) -> list[int]:
    """Lock the free partitions, in order. With `exact`, lock all of them or none.

    Never lock a held partition: PostgreSQL counts session locks.
    """
    owned: list[int] = []
    for partition in sorted(partitions):
        if _try(connection, "pg_try_advisory_lock", keys.key(_OWN, partition)):
            owned.append(partition)
        elif exact:
            release(connection, keys, owned)
            return []
    return owned


def release(connection: Connection, keys: LockKeys, partitions: Iterable[int]) -> None:
    for partition in partitions:
        _try(connection, "pg_advisory_unlock", keys.key(_OWN, partition))


def announce(connection: Connection, keys: LockKeys, partitions: Iterable[int], request: HandoverRequest) -> None:
    """Show the owners a waiting session."""
    for partition in partitions:
        _try(connection, "pg_try_advisory_lock_shared", keys.key(request, partition))


def withdraw(connection: Connection, keys: LockKeys, partitions: Iterable[int], request: HandoverRequest) -> None:
    for partition in partitions:
        _try(connection, "pg_advisory_unlock_shared", keys.key(request, partition))


def holders(
    connection: Connection, streams: Sequence[tuple[LockKeys, Collection[int]]], looks: CopyLooks
) -> list[dict[int, Holder]]:
    """Partition → owner, in the order of the streams. Free partitions are left out.

    Args:
        looks: earlier looks of this process at COPY progress.
    """
    by_key = {
        keys.key(_OWN, partition): (number, partition)
        for number, (keys, partitions) in enumerate(streams)
        for partition in partitions
    }
    owners: list[dict[int, Holder]] = [{} for _ in streams]
    if by_key:
        for row in connection.execute(_HOLDERS, {"keys": list(by_key), "frozen": looks.frozen_seconds}):
            number, partition = by_key[row.key]
            frozen = _is_frozen(row, looks)
            owners[number][partition] = Holder(run_of(row.application_name), row.pid, frozen, row.backend_start)
    return owners


def end_frozen(connection: Connection, keys: LockKeys, partitions: Collection[int], looks: CopyLooks) -> bool:
    """End the sessions of frozen owners. Returns whether another owner needs a second look.

    PostgreSQL's own time-outs leave three cases open:

    - They do not fire while PostgreSQL waits for a client inside COPY.
    - They do not fire after PostgreSQL has ignored data that a client sent after a failed COPY.
    - A session was once idle in a transaction for minutes in spite of the time-out.

    A session that has moved since the judgement is spared.
    """
    own_keys = [keys.key(_OWN, partition) for partition in partitions]
    rows = connection.execute(_HOLDERS, {"keys": own_keys, "frozen": looks.frozen_seconds}).all()
    judged = [(row, _is_frozen(row, looks)) for row in rows]
    for row in {row.pid: row for row, frozen in judged if frozen}.values():
        connection.execute(_END_FROZEN, dict(row._mapping))
    return any(frozen is None for _, frozen in judged)


def _is_frozen(row: Row[Any], looks: CopyLooks) -> bool | None:
    """Whether PostgreSQL waits for an owner without signs of life. A live owner sends a statement every second.

    Outside COPY an owner is frozen after `frozen_seconds` by the server's clock. Inside COPY the session sends only
    rows, so the owner is frozen if no byte arrived between looks at least half of `frozen_seconds` apart.
    """
    if not row.waits_for_client:
        looks.moved(row.pid)
        return False
    if row.bytes_processed is None:
        looks.moved(row.pid)
        return bool(row.silent)
    progress = CopyProgress(row.backend_start, row.state_change, row.bytes_processed, row.tuples_processed)
    standing = looks.seconds_standing(row.pid, progress)
    if standing == 0:
        return False
    return True if standing is not None and standing >= looks.frozen_seconds / 2 else None


def present_runs(connection: Connection) -> set[str]:
    """The runs with a writing session, as owners, waiting, or starting."""
    rows = connection.execute(_PRESENT, {"prefix": APPLICATION_PREFIX})
    return {run_of(row.application_name) for row in rows}


def this_backend(connection: Connection) -> Backend:
    row = connection.execute(_SELF).one()
    return Backend(row.pid, row.backend_start)


def end_backend(connection: Connection, backend: Backend) -> None:
    """End a lost session of the run, if the session still exists."""
    connection.execute(_END_BACKEND, {"pid": backend.pid, "backend_start": backend.backend_start})


def run_of(application_name: str) -> str:
    return application_name.removeprefix(APPLICATION_PREFIX)


def _try(connection: Connection, function: str, key: int) -> bool:
    return bool(connection.execute(text(f"SELECT {function}(:key)"), {"key": key}).scalar())

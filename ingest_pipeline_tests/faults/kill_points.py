"""A run that ends itself, as `kill -9` would, at a named step of a chosen batch.

The test wraps the steps from outside, in the process that will die. The product has no switch for this.
"""

import json
import os
from collections.abc import Callable, Mapping
from functools import wraps
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import psycopg

import ingest_pipeline.core.lane
from ingest_pipeline.core.record import Chunk
from ingest_pipeline.kafka.commit_requests import CommitRequests
from ingest_pipeline.kafka.source import KafkaSource
from ingest_pipeline.postgres.inserts import Inserts
from ingest_pipeline.postgres.session import PostgresLedgerSession
from ingest_pipeline.postgres.upserts import Upserts
from ingest_pipeline.postgres.writer import BatchWriter
from ingest_pipeline_tests.orchestration import killed_run
from ingest_pipeline_tests.orchestration.bench import query, wait_for

KILLED = 137
"""A shell's exit code for a process that SIGKILL ended."""
_PSYCOPG_BUFFER_BYTES = 1 << 15


class Death:
    """When and how the process ends.

    Args:
        nth: the batch, or the group commit, to die at, counted from 1.
        url: of the database. A second connection looks at what the first one does.
        marker: file for the last words, which prove that the step was reached.
    """

    def __init__(self, nth: int, url: str, marker: Path) -> None:
        self.nth, self.url, self._marker = nth, url, marker
        self.begun = self.written = 0
        after(PostgresLedgerSession, "write", self._count_written)
        before(PostgresLedgerSession, "write", self._count_begun)

    def _count_begun(self, *_: Any) -> None:
        self.begun += 1

    def _count_written(self, *_: Any) -> None:
        self.written += 1

    @property
    def reading(self) -> bool:
        """Between the transactions of the previous batch and of the chosen batch."""
        return self.begun == self.nth - 1

    @property
    def writing(self) -> bool:
        """Within the chosen batch's `write`."""
        return self.begun == self.nth and self.written == self.nth - 1

    def now(self, **seen: object) -> NoReturn:
        self._marker.write_text(json.dumps({"begun": self.begun, "written": self.written, **seen}))
        os._exit(KILLED)


def before(owner: Any, name: str, look: Callable[..., None]) -> None:
    """Call `look` with the arguments, then call the original."""
    original = getattr(owner, name)

    @wraps(original)
    def wrapper(*args: Any, **named: Any) -> Any:
        look(*args)
        return original(*args, **named)

    setattr(owner, name, wrapper)


def after(owner: Any, name: str, look: Callable[[Any], None]) -> None:
    """Call the original, then call `look` with the result. An exception skips `look`."""
    original = getattr(owner, name)

    @wraps(original)
    def wrapper(*args: Any, **named: Any) -> Any:
        result = original(*args, **named)
        look(result)
        return result

    setattr(owner, name, wrapper)


def flush(connection: psycopg.Connection) -> None:
    """Write the last words. On return the kernel has all bytes."""
    while connection.pgconn.flush():
        pass


def consumed(death: Death) -> None:
    def look(chunks: Mapping[str, Chunk]) -> None:
        if death.reading and any(chunk.messages for chunk in chunks.values()):
            death.now()

    after(KafkaSource, "read", look)


def decoded(death: Death) -> None:
    after(ingest_pipeline.core.lane, "decode_batch", lambda batch: death.now() if death.reading and batch else None)


def position_moved(death: Death) -> None:
    after(BatchWriter, "_advance", lambda _: death.now() if death.writing else None)


def mid_copy(death: Death) -> None:
    """Die while the server itself reports that a COPY in progress has read rows."""
    sent: dict[int, int] = {}

    def look(copy: Any, row: tuple[Any, ...]) -> None:
        if not death.writing:  # a later COPY may get the id of an ended one
            return
        sent[id(copy)] = sent.get(id(copy), 0) + sum(len(item) for item in row if isinstance(item, str))
        if sent[id(copy)] > _PSYCOPG_BUFFER_BYTES * 1.25:
            flush(copy.connection)  # libpq keeps the end of what it was given
            pid = copy.connection.info.backend_pid
            statement = "select bytes_processed from pg_stat_progress_copy where pid = %s"
            death.now(read=wait_for("rows within a COPY", lambda: sum(query(death.url, statement, pid))))

    before(psycopg.Copy, "write_row", look)


def savepoint_open(death: Death) -> None:
    """Die after the second piece of a refused batch is stored and before its savepoint is released."""
    stored = 0

    def look(_: Any) -> None:
        nonlocal stored
        stored += death.writing
        if stored == 2:
            death.now()

    after(Inserts, "rows", look)


def rows_written(death: Death) -> None:
    after(BatchWriter, "_store", lambda _: death.now() if death.writing else None)


def letters_written(death: Death) -> None:
    after(Inserts, "letters", lambda _: death.now() if death.writing else None)


def before_commit(death: Death) -> None:
    before(psycopg.Connection, "commit", lambda _: death.now() if death.writing else None)


def commit_sent(death: Death) -> None:
    """Die between sending the request and reading the answer."""

    def look(connection: psycopg.Connection) -> None:
        if death.writing:
            connection.pgconn.send_query(b"COMMIT")
            flush(connection)
            death.now()

    before(psycopg.Connection, "commit", look)


def committed(death: Death) -> None:
    after(PostgresLedgerSession, "write", lambda _: death.now() if death.written == death.nth else None)


def before_group_commit(death: Death) -> None:
    seen = 0

    def look(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == death.nth:
            death.now()

    before(CommitRequests, "send", look)


def after_group_commit(death: Death) -> None:
    seen = 0

    def look(_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == death.nth:
            death.now()

    after(CommitRequests, "on_commit", look)
    after(CommitRequests, "_commit", look)  # with several groups


POINTS: dict[str, Callable[[Death], None]] = {
    point.__name__: point
    for point in (
        consumed,
        decoded,
        position_moved,
        mid_copy,
        savepoint_open,
        rows_written,
        letters_written,
        before_commit,
        commit_sent,
        committed,
        before_group_commit,
        after_group_commit,
    )
}
"""The kill points, in the order of a batch."""


def staging_table_created(death: Death) -> None:
    """Die before the first transaction of a batch."""
    after(Upserts, "prepare", lambda _: death.now() if death.writing else None)


def rows_deleted(death: Death) -> None:
    """Die between the deletions and the rows of a batch."""
    after(Upserts, "_delete", lambda _: death.now() if death.writing else None)


def rows_merged(death: Death) -> None:
    after(Upserts, "_merge", lambda _: death.now() if death.writing else None)


KEYED_POINTS = {point.__name__: point for point in (staging_table_created, rows_deleted, rows_merged)}
"""Kill points that only a keyed stream has."""


def start(point: str, nth: int, marker: Path, url: str, drain: Callable[[], None]) -> BaseProcess:
    """Call `drain` in a process that dies at this point. See Death for the other arguments."""
    process = killed_run.FORKS.Process(target=_run, args=(point, nth, marker, url, drain))
    process.start()
    return process


def _run(point: str, nth: int, marker: Path, url: str, drain: Callable[[], None]) -> None:
    (POINTS | KEYED_POINTS)[point](Death(nth, url, marker))
    drain()

"""A keyed stream in whole runs, on real Kafka and PostgreSQL: change events, commands and checks."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ingest_pipeline import Stream
from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.core.ledger import LetterFilter, Redriven
from ingest_pipeline.operations.replays import ReplayRequest, ranges
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.table_reads import newest
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline_tests.orchestration.bench import Bench, metadata
from ingest_pipeline_tests.orchestration.records import Record

pytestmark = pytest.mark.kafka


class Customer(msgspec.Struct):
    id: int
    version: int
    name: str


CUSTOMER = Stream("customer", Customer, key=("id",), only_newer="version", deletes=True, envelope="debezium")


def change(operation: str, number: int, version: int = 0, name: str = "n") -> Record:
    row = {"id": number, "version": version, "name": name}
    before, after = (row, None) if operation == "d" else (None, row)
    key = {"schema": {"type": "struct"}, "payload": {"id": number}}
    value = {"op": operation, "before": before, "after": after}
    return Record(json.dumps(value).encode(), number % 2, json.dumps(key).encode())


def tombstone(number: int) -> Record:
    return change("d", number)._replace(value=None)


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_runs_keep_the_newest_row_of_each_key(make_bench: Callable[..., Bench], method: str) -> None:
    customers = make_bench([CUSTOMER], partitions=2, WRITE_METHOD=method, BATCH_SIZE="4")
    customers.produce([change("c", number, 1) for number in range(6)])
    customers.produce([change("u", 1, 3), change("u", 1, 2), change("u", 2, 5, "x\0"), change("d", 3), tombstone(3)])
    customers.drain()
    customers.produce([change("u", 1, 3, "same version"), change("c", 3, 1), change("u", 4, 0), change("d", 5)])
    customers.produce([change("d", 2), change("c", 2, 1, "again")])
    result = customers.by_sensor()
    assert result.success
    rows = customers.query("SELECT id, version, name FROM customer ORDER BY id")
    assert rows == [(0, 1, "n"), (1, 3, "same version"), (2, 1, "again"), (3, 1, "n"), (4, 1, "n")]
    counts = "SELECT sum(rows), sum(dead_letters), sum(skipped), sum(absent) FROM ingest.position"
    assert customers.query(counts) == [(14, 1, 2, 0)]
    assert customers.query("SELECT accounted FROM ingest.accounting") == [True, True]
    plain: dict[str, Any] = metadata(result, customers.stream)
    assert (plain["superseded"], "dagster/row_count" in plain, "dropped_by_trigger" in plain) == (1, False, False)
    letters = "SELECT status, reason LIKE '%(superseded:%' FROM ingest.dead_letter"
    assert customers.query(letters) == [("discarded", True)]
    context = customers.context
    database = Database(sqlalchemy_url(customers.operator_environ()["DATABASE_URL"]))
    redriven = DeadLetters(database, customers.stream).redrive(
        LetterFilter(), context.clients.decoder(customers.stream).decode, context.clients.record_rules(CUSTOMER)
    )
    assert redriven == Redriven()
    database.dispose()
    assert len(newest(context.clients.database(), customers.stream, 3)[1]) == 3
    with pytest.raises(SettingsError, match="deletes rows, and a replay could bring a deleted row back"):
        ranges(ReplayRequest(0, 0, 1), context)

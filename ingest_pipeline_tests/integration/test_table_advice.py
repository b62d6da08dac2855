"""Where `ingest migrate` refuses a table, the message has the statement that helps."""

from collections.abc import Iterator
from datetime import datetime

import msgspec
import pytest

from ingest_pipeline.core.errors import SchemaMismatch
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres import schema
from ingest_pipeline_tests.integration.postgres_bench import Bench, pasted

pytestmark = pytest.mark.empty_database


class Sale(msgspec.Struct):
    event_time: datetime
    item: int
    note: str | None = None


SALE = Stream("sale", Sale)
VALUE = b'{"event_time": "2026-01-01T00:00:00Z", "item": 7}'
IN_ITS_PLACE = {
    "a view": "ALTER TABLE sale RENAME TO base; CREATE VIEW sale AS SELECT * FROM base",
    "a foreign table": "CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER files FOREIGN DATA WRAPPER nothing;"
    " ALTER TABLE sale RENAME TO base; CREATE FOREIGN TABLE sale (item bigint) SERVER files",
}


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    with Bench(database_url, SALE) as made:
        yield made.begin()


@pytest.mark.parametrize("column", ["item", "event_time"])
def test_a_dropped_column_of_a_table_with_rows(bench: Bench, column: str) -> None:
    bench.write([VALUE])
    bench.sql(f"ALTER TABLE sale DROP {column}")
    with pytest.raises(SchemaMismatch, match=f"column {column} .* is missing, and rows without a value") as stopped:
        bench.write([VALUE])
    with pytest.raises(SchemaMismatch) as refused:
        schema.migrate(bench.database, [SALE])
    assert "ingest migrate" not in stopped.value.message + refused.value.message, "it refuses"
    (statement,) = pasted(stopped.value.message)
    assert pasted(refused.value.message) == [statement]
    bench.sql(statement)
    bench.new_session()


def test_a_dropped_coordinate_of_a_table_with_rows(bench: Bench) -> None:
    bench.write([VALUE])
    bench.sql("ALTER TABLE sale DROP kafka_offset")
    with pytest.raises(SchemaMismatch, match="rows without their Kafka coordinates are there: give the stream another"):
        bench.write([VALUE])


def test_a_dropped_column_of_an_empty_table_is_added(bench: Bench) -> None:
    bench.sql("ALTER TABLE sale DROP item")
    with pytest.raises(SchemaMismatch, match=r"column item bigint is missing\. `ingest migrate` adds what is missing"):
        bench.new_session()
    assert schema.migrate(bench.database, [SALE]) == ["added column public.sale.item"]


def test_a_column_that_no_field_fills(bench: Bench) -> None:
    bench.sql("ALTER TABLE sale ADD must text NOT NULL")
    with pytest.raises(SchemaMismatch, match="no field fills it: ALTER TABLE") as refused:
        schema.migrate(bench.database, [SALE])
    assert "ingest migrate" not in refused.value.message, "it refuses"
    (statement,) = pasted(refused.value.message)
    bench.sql(statement)
    bench.write([VALUE])


def test_a_table_of_somebody_else_with_a_key_of_its_own(bench: Bench) -> None:
    bench.sql("DROP TABLE sale")
    bench.sql("CREATE TABLE sale (id bigint PRIMARY KEY, event_time timestamptz NOT NULL, item bigint NOT NULL)")
    way = (
        r"the primary key is sale_pkey \(id\), not sale_pkey \(.*\): give the stream another table, or declare it with"
    )
    with pytest.raises(SchemaMismatch, match=way):
        schema.migrate(bench.database, [SALE])
    with pytest.raises(SchemaMismatch, match=way):
        bench.new_session()


def test_a_table_with_another_key_of_its_own_gets_a_unique_index(database_url: str) -> None:
    keyed = Stream("sale", Sale, key=("item",))
    with Bench(database_url, keyed) as bench:
        bench.begin().sql("ALTER TABLE sale DROP CONSTRAINT sale_pkey, ADD id serial PRIMARY KEY")
        with pytest.raises(SchemaMismatch, match="no primary key or unique index is on") as refused:
            schema.migrate(bench.database, [keyed])
        (statement,) = pasted(refused.value.message)
        bench.sql(statement)
        bench.new_session()


@pytest.mark.parametrize("case", IN_ITS_PLACE)
def test_the_printed_statement_renames_the_relation_in_the_way(bench: Bench, case: str) -> None:
    bench.sql(IN_ITS_PLACE[case])
    with pytest.raises(SchemaMismatch) as refused:
        schema.migrate(bench.database, [SALE])
    assert "ingest migrate" not in refused.value.message, "it refuses"
    bench.sql(refused.value.message.partition(", or ")[2])
    bench.sql("ALTER TABLE base RENAME TO sale")
    assert bench.differences() == []


def test_migrate_is_advised_after_what_it_refuses(bench: Bench) -> None:
    bench.sql("ALTER TABLE sale DROP note, ADD must text NOT NULL")
    with pytest.raises(
        SchemaMismatch, match=r"DROP NOT NULL, or give it a default\. After that, `ingest migrate` adds"
    ):
        bench.new_session()
    with pytest.raises(SchemaMismatch, match="no field fills it: ALTER TABLE"):
        schema.migrate(bench.database, [SALE])
    bench.sql('ALTER TABLE "public"."sale" ALTER "must" DROP NOT NULL')
    assert schema.migrate(bench.database, [SALE]) == ["added column public.sale.note"]

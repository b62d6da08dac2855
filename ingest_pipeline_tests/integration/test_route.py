"""The tables of a route in a real PostgreSQL: names, rights, migrations, partitions and reads."""

from __future__ import annotations

import msgspec
import pytest

from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.ledger import LetterFilter, Replayed
from ingest_pipeline.core.record import NextOffset, Position
from ingest_pipeline.core.route import Route
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.decoders import Decoder, decoder_of
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.replay import MissingRows
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.postgres.table_reads import newest
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import make_batch, message

pytestmark = pytest.mark.empty_database


class Event(msgspec.Struct):
    kind: str
    number: int


class Click(Event):
    url: str


def decoder(stream: Stream) -> Decoder:
    return decoder_of(stream, NaiveTimestamps.UTC, lambda: pytest.fail("no registry is needed"))


def event(kind: str, number: int) -> bytes:
    return msgspec.json.encode({"kind": kind, "number": number, "url": "u"})


@pytest.mark.parametrize("name", ["{ledger}", "{rows}", "{holds}", "a:b", 'a"b', "100%"])
def test_any_name_works_for_the_tables_of_a_route(database_url: str, name: str) -> None:
    stream = Stream("event", Event, route=Route("kind", {"click": (name, Click), "view": f"{name}2"}))
    schemas, decode = Schemas(events=name, ledger=f"{name}_ledger"), decoder(stream).decode
    start = {0: Position(0, 1, NextOffset(0))}
    with Bench(database_url, stream, schemas=schemas) as bench:
        bench.begin()
        values = [event("click", 1), event("view", 2), event("scroll", 3)]
        records = [message(0, n, value) for n, value in enumerate(values)]
        bench.session.write(bench.batch(records, decode))
        wider = Stream("event", Event, route=Route("kind", {**stream.route.tables, "scroll": f"{name}2"}))  # type: ignore[union-attr]
        assert DeadLetters(bench.database, wider).redrive(LetterFilter(), decoder(wider).decode).stored == 1
        again = make_batch(start, records, stream=wider, decode=decoder(wider).decode)
        assert MissingRows(bench.database, wider).store(again) == Replayed(present=3)
        assert [len(newest(bench.database, table, 5)[1]) for table in stream.tables] == [1, 2]

"""What README and docs/ have people type runs: the commands that end by themselves, and the SQL."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import CliRunner

from ingest_pipeline.cli import main
from ingest_pipeline_tests.declared import declare
from ingest_pipeline_tests.docs_commands import PAGES, calls, names, statements
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.conftest import PRICE, TEMPERATURE
from ingest_pipeline_tests.orchestration.records import prices, temperatures, with_broken

pytestmark = pytest.mark.kafka
ENDLESS = {"demo", "metrics", "simulate"}
ELSEWHERE = {"downgrade", "load", "stream-from-topic"}
"""Commands that need a file, another topic or a ledger of their own. They have tests of their own."""
EXTENSION = "create_hypertable"
"""A function of TimescaleDB. test_hypertable.py runs the statement."""
LACKING = {
    "accept-loss",
    "dead-letters allow",
    "dead-letters redrive",
    "pause",
    "replay",
    "resume",
    "schema",
    "tail",
}
"""Named in passing, without what they need."""
SAID = {
    "check": (0, 1),  # Dagster's configuration here is not the shipped one
    "status": (0, 1),  # 1 until the dead letters are acknowledged
    "status price": (1,),  # dead letters wait
    "status --json": (1,),
    "dead-letters show price 17": (1,),  # there are no 17
}


def test_the_commands_and_the_sql_run(make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench([TEMPERATURE, PRICE], partitions=1)
    temperature, price = bench.streams
    bench.produce(temperatures(10, 1))
    bench.produce(with_broken(prices(2100, 1), 1000), price)
    assert bench.by_hand().success
    reading = replace(temperature, name="reading", topic="", table="", job="")
    texts = [page.read_text() for page in PAGES]
    queries = [query for text in texts for query in statements(text) if EXTENSION not in query]
    assert len(queries) >= 3
    for query in queries:  # before a command settles the dead letters
        assert bench.query(query) or "'level'" in query, query  # the keyed stream of docs/streams.md is not here
    asked = {" ".join(words): words for text in texts for words in [*calls(text), *names(text)]}
    asked = {
        line: words for line, words in asked.items() if line not in LACKING and words[0] not in ENDLESS | ELSEWHERE
    }
    assert len(asked) >= 15
    for line, words in asked.items():
        declared = [*bench.streams, reading] if "reading" in words else list(bench.streams)
        declare(monkeypatch, declared)
        result = CliRunner().invoke(main.main, words, env=dict(bench.operator_environ()), input="y\n")
        assert result.exit_code in SAID.get(line.removeprefix("--traceback "), (0,)), f"{line}: {result.output}"
        assert "unexpected error" not in result.output

"""A run's log lines: the same fields in both forms, named as the metrics are."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from ingest_pipeline.orchestration.run.log import LOGGER, FieldsFormatter
from ingest_pipeline.orchestration.run.report import LOGGED
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.records import temperatures, with_broken
from ingest_pipeline_tests.orchestration.test_metrics import scraped

Make = Callable[..., Bench]


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    logging.getLogger(LOGGER).addHandler(handler)
    yield handler
    logging.getLogger(LOGGER).removeHandler(handler)


def line(log_format: str, message: str, **fields: object) -> str:
    record = logging.LogRecord(LOGGER, logging.INFO, "", 0, message, None, None)
    record.fields = fields
    record.created = 1_767_225_609.881
    return FieldsFormatter(log_format).format(record)


def test_both_forms_say_the_same() -> None:
    fields = {"rows": 18, "position_offset": {0: 10, 1: 11}, "said": 'a "b"=c'}
    assert line("logfmt", "committed", **fields) == (
        "time=2026-01-01T00:00:09.881+00:00 level=info message=committed rows=18 position_offset=0:10,1:11"
        ' said="a \\"b\\"=c"'
    )
    assert json.loads(line("json", "committed", **fields)) == {
        "time": "2026-01-01T00:00:09.881+00:00",
        "level": "info",
        "message": "committed",
        "rows": 18,
        "position_offset": {"0": 10, "1": 11},
        "said": 'a "b"=c',
    }


@pytest.mark.kafka
def test_fields_are_the_metrics_names_and_add_up_to_their_values(make_bench: Make, kept: Kept) -> None:
    bench = make_bench(BATCH_SIZE="5", RECORDS_PER_COMMIT="1")
    bench.produce([*with_broken(temperatures(20), 7), temperatures(1)[0]._replace(value=None)])
    bench.drain()
    found = scraped(bench)
    lines = [record.fields for record in kept.records if record.getMessage() == "committed"]  # type: ignore[attr-defined]
    assert {name for each in lines for name in each} == {"stream", *LOGGED, "position_offset"}
    assert len(lines) > 3
    assert {each["batches"] for each in lines} == {1}
    counts: Counter[str] = Counter()
    for each in lines:
        counts.update({name: each[name] for name in LOGGED})
    for name in set(LOGGED) - {"batches"}:
        told = [value for (metric, *_), value in found.items() if metric == f"ingest_{name}_total"]
        assert told, f"no metric for the log's {name}"
        assert sum(told) == counts[name]
    assert (counts["rows"], counts["dead_letters"], counts["skipped_records"]) == (18, 2, 1)
    for partition, offset in lines[-1]["position_offset"].items():
        assert found["ingest_position_offset", "temperature", str(partition)] == offset

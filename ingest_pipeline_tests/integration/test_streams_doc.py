"""The example in docs/streams.md: stream, record and row, exactly as printed there."""

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.integration.postgres_bench import Bench

pytestmark = pytest.mark.empty_database

PAGE = (Path(__file__).parents[2] / "docs" / "streams.md").read_text()


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_the_record_becomes_the_row(database_url: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(from .*?)```", PAGE, re.DOTALL)
    value, row = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    (select,) = re.findall(r"`(convert_from.*?)`", PAGE)
    module = types.ModuleType("streams_example")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where msgspec resolves annotations
    exec(compile(example, "docs/streams.md", "exec"), module.__dict__)
    stream: Any = module.MEASURED
    with Bench(database_url, stream, method=method) as bench:
        bench.begin().sql("SET timezone TO 'UTC'")
        message = MemoryMessage(
            0, 0, 0, value.encode(), key=b"m7", headers=[("trace", b"abc")], timestamp_ms=1_700_000_000_000
        )
        bench.session.write(bench.batch([message]))
        (stored,) = bench.sql("SELECT to_jsonb(measured) - 'kafka_timestamp' - 'ingested_at' FROM measured")
        assert stored == json.loads(row)
        assert bench.sql(f"SELECT {select} FROM measured") == ["abc"]

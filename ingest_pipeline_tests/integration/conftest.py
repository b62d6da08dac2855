import inspect
from collections.abc import Iterator

import pytest

from ingest_pipeline.postgres.database import Database
from ingest_pipeline_tests.integration.postgres_bench import Bench


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    with Bench(database_url) as made:
        yield made.begin()


@pytest.fixture
def queries_end_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statement time-out of a query is 1 s instead of 5 s, where the caller of `Database.connect` passes none."""
    monkeypatch.setattr(inspect.unwrap(Database.connect), "__defaults__", (1,))

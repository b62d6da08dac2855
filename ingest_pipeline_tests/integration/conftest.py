from collections.abc import Iterator

import pytest

from ingest_pipeline_tests.integration.postgres_bench import Bench


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    with Bench(database_url) as made:
        yield made.begin()

"""The fixture `make_bench` of the orchestration tests, for tests that strike the servers below it."""

from ingest_pipeline_tests.orchestration.conftest import dagster_storage, make_bench

__all__ = ["dagster_storage", "make_bench"]

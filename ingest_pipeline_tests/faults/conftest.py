"""The fixture `bench` of the orchestration tests, for tests that strike the servers below it."""

from ingest_pipeline_tests.orchestration.conftest import bench, dagster_storage

__all__ = ["bench", "dagster_storage"]

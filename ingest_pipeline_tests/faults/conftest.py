"""`bench` of the orchestration tests, for tests that strike the servers below it."""

from ingest_pipeline_tests.orchestration.conftest import bench

__all__ = ["bench"]

"""Why sensors do not look, when Dagster's storage does not answer either."""

import socket
from pathlib import Path

import pytest

from ingest_pipeline.orchestration.sensor_states import reasons_of_folder

BROKEN = """
storage: {{sqlite: {{base_dir: {folder}}}}}
"""
SILENT = """
storage:
  postgres:
    postgres_url: postgresql+psycopg2://x:x@127.0.0.1:{port}/x
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_storage_gives_no_reason(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(BROKEN.format(folder=tmp_path))
    (tmp_path / "schedules").mkdir()
    (tmp_path / "schedules" / "schedules.db").write_bytes(b"no database" * 1000)
    assert reasons_of_folder(["temperature"]) == {}


def test_a_storage_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "dagster.yaml").write_text(SILENT.format(port=server.getsockname()[1]))
        assert reasons_of_folder(["temperature"]) == {}

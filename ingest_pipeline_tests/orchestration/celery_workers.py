"""`dagster dev` whose runs start on Celery workers of this machine."""

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from ingest_pipeline.local.child_process import Child
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import ROOT

LAUNCHER = (ROOT / "deploy" / "celery" / "run_launcher.yaml").read_text()
COMMAND = ("-A", "ingest_pipeline.orchestration.celery_app", "worker", "-Q", "dagster", "-l", "INFO")


class CeleryWorker(Child):
    """A worker in the folder of `dagster dev`, which names the broker, the storage and the streams.

    Args:
        location: the module of the definitions.
        environ: that of `dagster dev`, with CELERY_BROKER_URL.
        slots: how many runs it takes at a time.
    """

    def __init__(self, name: str, folder: Path, location: str, environ: Mapping[str, str], slots: int = 4) -> None:
        command = [sys.executable, "-m", "celery", *COMMAND, "-I", location, "-n", f"{name}@%h", "-c", str(slots)]
        environ = {**environ, "DAGSTER_HOME": str(folder)}
        log = folder / f"{name}.log"
        super().__init__(f"worker {name}", command, log, env=environ, cwd=folder, end_signal=signal.SIGTERM)

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            self.check()
            assert self.log_path is not None
            return " ready." in self.log_path.read_text()

        wait_for(f"{self.name} in {self.log_path}", is_ready, every=0.2)

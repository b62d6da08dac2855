"""A run launcher whose processes begin late, as a container's do that has to fetch its image.

It ends a run as Celery's launcher does: by a signal alone, without a report to Dagster.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Self

from dagster import Field, Float
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass
from dagster._serdes.config_class import ConfigurableClassData

_PID = "slow_launcher/pid"
_WAIT = "import os, sys, time; time.sleep(float(sys.argv[1])); os.execvp(sys.argv[2], sys.argv[2:])"


class SlowRunLauncher(RunLauncher, ConfigurableClass):
    """Each launch returns at once. The run's process begins `seconds` later."""

    def __init__(self, seconds: float, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__()
        self._seconds, self._data = seconds, inst_data

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._data

    @classmethod
    def config_type(cls) -> Mapping[str, Any]:
        return {"seconds": Field(Float)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        assert context.job_code_origin is not None
        run_id, instance = context.dagster_run.run_id, self._instance.get_ref()
        _, *arguments = ExecuteRunArgs(context.job_code_origin, run_id, instance).get_command_args()
        dagster = (sys.executable, "-m", "dagster")
        process = subprocess.Popen([sys.executable, "-c", _WAIT, str(self._seconds), *dagster, *arguments])
        self._instance.add_run_tags(run_id, {_PID: str(process.pid)})

    def terminate(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        assert run is not None
        os.kill(int(run.tags[_PID]), signal.SIGTERM)
        return True

"""A run coordinator for launchers that end a run without a word to Dagster, such as Celery's."""

import dagster as dg
from dagster._core.run_coordinator import DefaultRunCoordinator


class CancelingRunCoordinator(DefaultRunCoordinator):
    """Launches runs at once, and reports CANCELING before the launcher sends the signal of Terminate."""

    def cancel_run(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished and run.status != dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        return super().cancel_run(run_id)

"""The simulator on its own thread."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ..core.errors import IngestError
from ..local.server import LocalServerError
from .simulate import Plan, Tally, simulate


class Simulator:
    """Sends the plan's events from its construction until `stop`."""

    def __init__(self, kafka: Mapping[str, str], plan: Plan) -> None:
        self.tally = Tally()
        self._is_over = threading.Event()
        self._pool = ThreadPoolExecutor(1, "simulator")
        self._simulation = self._pool.submit(simulate, kafka, plan, stop=self._is_over.is_set, report=self._report)

    def stop(self) -> Tally:
        """End the simulator. On return the tally is complete. May be called again."""
        self._is_over.set()
        self._pool.shutdown()
        return self.tally

    def check(self) -> None:
        """Raise LocalServerError when the simulator has failed."""
        if self._simulation.done():
            try:
                self._simulation.result()
            except IngestError as error:
                raise LocalServerError(f"the simulator ended: {error.message}") from error

    def _report(self, tally: Tally) -> None:
        self.tally = tally

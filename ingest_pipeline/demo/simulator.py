"""The simulator on a thread of its own, beside whatever else a process does."""

import threading
from collections.abc import Mapping

from ..core.errors import IngestError
from ..local.server import LocalServerError
from .simulate import Plan, Tally, simulate


class Simulator:
    """Sends what the plan says from `start` on until `stop`."""

    def __init__(self, kafka: Mapping[str, str], plan: Plan) -> None:
        self.tally = Tally()
        self._kafka, self._plan = kafka, plan
        self._over = threading.Event()
        self._error: IngestError | None = None
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> Tally:
        """End it; on return everything sent is settled, as the tally says. May be called again."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        return self.tally

    def check(self) -> None:
        """Raise LocalServerError when it could not go on."""
        if self._error is not None:
            raise LocalServerError(f"the simulator ended: {self._error.message}")

    def _run(self) -> None:
        try:
            self.tally = simulate(self._kafka, self._plan, self._over.is_set, self._report)
        except IngestError as error:
            self._error = error

    def _report(self, tally: Tally) -> None:
        self.tally = tally

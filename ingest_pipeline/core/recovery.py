"""Writes, heartbeats and reconnections on the lanes' shared connection."""

from collections.abc import Callable, Collection, Mapping

from .backoff import Backoff
from .errors import EnvironmentFault, Superseded, TableBusy
from .lane import Lane
from .ledger_ports import WritingConnection
from .ports import Clock
from .record import Batch, CommitResult, OwnerRequests


class Recovery:
    """Retries after an EnvironmentFault, and owns the partitions of all lanes again.

    Args:
        shared: several streams need the connection, so a busy table is left to a later try.
    """

    def __init__(
        self,
        connection: WritingConnection,
        clock: Clock,
        retry_seconds: float,
        *,
        stop: Callable[[], str | None],
        shared: bool,
        owning: Callable[[], Collection[Lane]],
    ) -> None:
        self._connection, self._clock, self._retry_seconds = connection, clock, retry_seconds
        self._stop, self._shared, self._owning = stop, shared, owning

    def write(self, lane: Lane, batch: Batch) -> CommitResult:
        """Store a batch. Raises TableBusy where streams share the connection, and what `LedgerSession.write` does."""
        backoff: Backoff | None = None
        while True:
            try:
                return lane.session.write(batch)
            except TableBusy as fault:
                if self._shared:
                    raise
                backoff = backoff or self._backoff()  # not earlier: the first try may have waited for a time-out
                backoff.wait(fault)
                continue
            except EnvironmentFault as fault:
                backoff = backoff or self._backoff()
                result = self._recover(backoff, fault, lane, batch)
            if result is not None:
                return result

    def heartbeat(self) -> Mapping[str, OwnerRequests]:
        """Stream → requests to its owner. Empty after a reconnection."""
        try:
            return self._connection.heartbeat()
        except EnvironmentFault as fault:
            self.reconnect(fault)
            return {}

    def reconnect(self, fault: EnvironmentFault) -> None:
        """Connect and own again. Raises the fault when the retries end."""
        self._recover(self._backoff(), fault)

    def _recover(
        self, backoff: Backoff, fault: EnvironmentFault, lane: Lane | None = None, batch: Batch | None = None
    ) -> CommitResult | None:
        """Returns the result of `batch` if PostgreSQL had committed it. Raises the Superseded of `lane`.

        Every try recovers all lanes, because a new connection holds no locks. `lane` comes last: its Superseded leaves
        the other lanes with their locks.
        """
        lanes = [*(other for other in self._owning() if other is not lane), *([] if lane is None else [lane])]
        while lanes:
            backoff.wait(fault)
            try:
                for other in lanes:
                    if other is lane:
                        return other.session.recover(batch)
                    self._recover_other(other)
                return None
            except EnvironmentFault as again:
                fault = again
        return None

    def _recover_other(self, lane: Lane) -> None:
        try:
            lane.session.recover(None)
        except Superseded as error:
            if not self._shared:
                raise
            lane.batch.clear()
            lane.end_reason = error

    def _backoff(self) -> Backoff:
        return Backoff(self._clock, self._retry_seconds, self._stop)

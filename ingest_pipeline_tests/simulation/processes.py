"""The processes that are alive, and what may befall them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ingest_pipeline.orchestration import tags
from ingest_pipeline.testing.database import MemoryConnection
from ingest_pipeline_tests.simulation.jobs import Job
from ingest_pipeline_tests.simulation.runs import SimRun

if TYPE_CHECKING:
    from ingest_pipeline_tests.simulation.parts import SimLedgerSession
    from ingest_pipeline_tests.simulation.world import World

LINGER_SECONDS = 15.0
"""How long the server takes to notice that a client is gone, at most."""
EXPECTED_ENDS = {
    *("DatabaseUnavailable", "KafkaUnavailable"),
    *("DataLoss", "TopicChanged", "TopicMissing", "DeadLetterLimit"),
}


class Processes:
    """Attributes: sessions: job → the ledger session it has opened. lingering: connections whose client is gone."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._jobs: list[Job] = []
        self.sessions: dict[Job, SimLedgerSession] = {}
        self.lingering: list[tuple[float, MemoryConnection]] = []

    def start(self, name: str, work: Callable[[], None], decoder_mended: bool) -> Job:
        job = Job(name, work)
        job.mended = decoder_mended
        self._jobs.append(job)
        return job

    def alive(self) -> list[Job]:
        self._jobs = [job for job in self._jobs if not job.dead]
        return self._jobs

    def go(self, job: Job, points: int) -> None:
        """Let it run up to so many points, or to its end. One whose process does not exist yet waits."""
        if self._world.clock.monotonic() < job.begins_at:
            return
        for _ in range(points):
            if job.dead:
                break
            job.switch()
            self._world.checks.begun_now()
        if job.dead:
            self._ended(job)

    def kill(self, job: Job, at: str, lingers: bool) -> None:
        """SIGKILL at that point, or later. `lingers`: its host is gone with it, and nobody tells the server."""
        job.doom, job.lingers = at, lingers
        self.go(job, 60)
        if not job.dead:
            job.end()
            self._ended(job)

    def freeze(self, job: Job, at: str, ticks: int, points: int) -> None:
        """At that point, or later. The server ends the session of a frozen process and gives its locks away; others go
        on for so many ticks, by so many points each. Then it wakes up and goes on writing, not knowing."""
        for _ in range(60):
            if job.point == at or job.dead:
                break
            self.go(job, 1)
        session = self.sessions.get(job)
        if session is None or not session.connection.alive:
            return
        self._world.database().free(session.connection)
        if session.connection in self._world.database().connections:
            self._world.database().connections.remove(session.connection)
        job.zombie = True
        self._world.count["processes frozen"] += 1
        for _ in range(ticks):
            self._world.tick(10.0)
            for other in list(self.alive()):
                if other is not job:
                    self.go(other, points)
        self.go(job, 40)

    def cut_session(self, job: Job) -> None:
        """pg_terminate_backend."""
        if job in self.sessions:
            self._world.count["sessions ended"] += 1
            self._world.database().end(self.sessions[job].connection)

    def stop(self, which: int, reason: str) -> None:
        """Terminate in the UI, or a signal."""
        going = [run for run in self._world.instance.runs.values() if not run.is_finished and not run.job.dead]
        if going:
            run = going[which % len(going)]
            run.stop_reason = reason
            self._world.count[f"stopped: {reason}"] += 1

    def end_lingering(self, before: float) -> None:
        for _, connection in [item for item in self.lingering if item[0] <= before]:
            self._world.database().end(connection)
        self.lingering = [item for item in self.lingering if item[0] > before]

    def sessionless(self, run: SimRun) -> bool:
        return run.run_id not in {connection.run_id for connection in self._world.database().connections}

    def close(self) -> None:
        for job in self.alive():
            job.lingers = False
            job.end()

    def _ended(self, job: Job) -> None:
        run = self._world.instance.runs.get(job.name)
        if job.killed:
            self._world.count[f"killed at {job.point}"] += 1
        elif run is not None:
            failed = run.tags[tags.ENDED].partition("failed:")[2]
            watch = job.watch
            assert watch is not None
            assert failed in {"", watch.stopped_by, *EXPECTED_ENDS}, f"{failed}: {run.said}"
            watch.ended(failed, run.stop_reason)
        self.sessions.pop(job, None)

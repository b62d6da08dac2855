"""The processes that are alive, and what may befall them."""

from collections.abc import Callable, Mapping
from typing import cast

from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.simulation.database import SimDatabase
from ingest_pipeline_tests.simulation.jobs import Job
from ingest_pipeline_tests.simulation.runs import SimInstance
from ingest_pipeline_tests.simulation.state import SharedState
from ingest_pipeline_tests.simulation.streams import SimStream

EXPECTED_ENDS = {
    *("DatabaseUnavailable", "TableBusy", "KafkaUnavailable"),
    *("DataLoss", "TopicChanged", "TopicMissing", "DeadLetterLimit"),
}


class Processes:
    def __init__(self, state: SharedState, database: SimDatabase, instance: SimInstance) -> None:
        self._state, self._database, self._instance = state, database, instance
        self._jobs: list[Job] = []

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
        if self._state.clock.monotonic() < job.begins_at:
            return
        streams = cast(Mapping[str, SimStream], self._state.streams).values()
        for _ in range(points):
            if job.dead:
                break
            job.step(self._state.clock.monotonic())
            for stream in streams:
                stream.checks.begun_now()
        if job.dead:
            self._ended(job)

    def kill(self, job: Job, at: str, lingers: bool) -> None:
        """SIGKILL at that point, or later. `lingers`: its host is gone with it, and nobody tells the server."""
        job.doom, job.lingers = at, lingers
        self.go(job, 60)
        if not job.dead:
            job.end()
            self._ended(job)

    def freeze(self, job: Job, at: str) -> bool:
        """Freeze the process at that point, or later. The server ends its session and gives its locks away.

        False when it had no session. Until `go` wakes it up it does not know that its session is gone.
        """
        for _ in range(60):
            if job.point == at or job.dead:
                break
            self.go(job, 1)
        connection = self._database.writing.get(job)
        if connection is None or not connection.backend.alive:
            return False
        self._database.free(connection.backend)
        if connection.backend in self._database.backends:
            self._database.backends.remove(connection.backend)
        job.zombie = True
        self._state.count["processes frozen"] += 1
        return True

    def cut_session(self, job: Job) -> None:
        """pg_terminate_backend."""
        if job in self._database.writing:
            self._state.count["sessions ended"] += 1
            self._database.end(self._database.writing[job].backend)

    def stop(self, which: int, reason: str) -> None:
        """Terminate in the UI, or a signal."""
        going = [run for run in self._instance.runs.values() if not run.is_finished and not run.job.dead]
        if going:
            run = going[which % len(going)]
            run.stop_reason = reason
            self._state.count[f"stopped: {reason}"] += 1

    def close(self) -> None:
        for job in self.alive():
            job.lingers = False
            job.end()

    def _ended(self, job: Job) -> None:
        job.end()  # its threads
        run = self._instance.runs.get(job.name)
        if job.killed:
            self._state.count[f"killed at {job.point}"] += 1
        elif run is not None and job.watch is not None:
            failed = run.tags[tags.ENDED].partition("failed:")[2]
            refusals = set().union(*(watch.refusals for watch in job.watch.streams.values()))
            assert failed in {"", *refusals, *EXPECTED_ENDS}, f"{failed}: {run.said}"
            job.watch.ended(failed, run.stop_reason, tags.failed_streams(run.tags))
        self._database.writing.pop(job, None)

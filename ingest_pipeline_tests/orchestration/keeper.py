"""Jobs on a real Dagster instance, and the maintenance job so many days later."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickData, TickStatus
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster_shared.error import SerializableErrorInfo

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.jobs import maintenance
from ingest_pipeline.settings import load_settings
from ingest_pipeline.testing import MemoryDatabase, MemoryLedger, SettableClock
from ingest_pipeline_tests.samples import READING

DAY = 86_400.0
SENSOR = "busy_sensor"
OURS = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "ours")
THEIRS = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("there"), "ours")
"""Another code location. Dagster gives its repository the same name."""


@dg.asset(key="busy", check_specs=[dg.AssetCheckSpec("up_to_date", asset="busy")])
def busy(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    print("a line for the compute log")
    context.log_event(dg.AssetObservation("busy", metadata={"rows": 1}, tags={"part": "one"}))
    result = dg.AssetCheckResult(passed=True, check_name="up_to_date")
    yield dg.MaterializeResult(metadata={"rows": 1}, check_results=[result], tags={"part": "one"})


@dg.asset(key="quiet")
def quiet() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"rows": 2})


@dg.asset(key="broken")
def broken() -> None:
    raise dg.Failure("as it is meant")


@dg.asset(key="theirs")
def theirs() -> None: ...


@dg.op
def foreign() -> None:
    print("a line of somebody else's job")


@dg.graph
def anything() -> None:
    foreign()


FOREIGN_JOBS = [anything.to_job(name, executor_def=dg.in_process_executor) for name in ("maintenance", "replay")]
DEFINITIONS = dg.Definitions(
    [busy, quiet, broken, theirs],
    jobs=[
        dg.define_asset_job("drain_busy", [busy]),
        dg.define_asset_job("drain_quiet", [quiet]),
        dg.define_asset_job("drain_broken", [broken]),
        dg.define_asset_job("their_job", [theirs, busy]),
    ],
    executor=dg.in_process_executor,
)


class ClientsWithoutServers(Clients):
    """The ledger is empty and in memory."""

    def ledger(self, stream: Stream) -> Any:
        return MemoryLedger(MemoryDatabase(), stream)


class Keeper:
    """Runs jobs on the instance, and the maintenance job so many days later."""

    def __init__(self, instance: dg.DagsterInstance, folder: Path) -> None:
        self.instance, self.folder = instance, folder

    def run(self, name: str, times: int = 1, job: str | None = None) -> list[str]:
        """Ids of runs of a stream's job, oldest first."""
        found = {tags.STREAM: name, tags.SHARD: "0/1"}
        chosen = DEFINITIONS.resolve_job_def(job or f"drain_{name}")
        return [
            chosen.execute_in_process(instance=self.instance, tags=found, raise_on_error=False).run_id
            for _ in range(times)
        ]

    def maintain(self, days_later: float, keep: int = 0) -> None:
        clock = SettableClock(time.time() + days_later * DAY)
        clients = ClientsWithoutServers(load_settings([], {"RUN_RETENTION_KEEP": str(keep)}), clock)
        contexts = [StreamContext(Stream(name, READING.event), clients) for name in ("busy", "quiet", "broken")]
        self.execute(maintenance.maintenance_job(clients, contexts, [SENSOR]), OURS)

    def execute(self, job: dg.JobDefinition, repository: RemoteRepositoryOrigin, **more: str) -> str:
        """A run as the daemon launches it for a code location, in this process. Its id."""
        origin = repository.get_job_origin(job.name)
        run = self.instance.create_run_for_job(job, remote_job_origin=origin, tags={**job.run_tags, **more})
        assert execute_run(InMemoryJob(job), run, self.instance).success
        return run.run_id

    def tick(self, sensor: str, repository: RemoteRepositoryOrigin = OURS) -> None:
        """One of each kind, now."""
        origin = repository.get_instigator_origin(sensor)
        state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING)
        if self.instance.get_instigator_state(state.instigator_origin_id, state.selector_id) is None:
            self.instance.add_instigator_state(state)
        named = (origin.get_id(), sensor, InstigatorType.SENSOR)
        error = SerializableErrorInfo("as it is meant", [], None)
        for tick in (
            TickData(*named, TickStatus.SUCCESS, time.time(), run_ids=[], selector_id=state.selector_id),
            TickData(*named, TickStatus.FAILURE, time.time(), error=error, selector_id=state.selector_id),
        ):
            self.instance.create_tick(tick)

    def ticks(self, sensor: str, repository: RemoteRepositoryOrigin = OURS) -> set[str]:
        origin = repository.get_instigator_origin(sensor)
        (state,) = [each for each in self.instance.all_instigator_state() if each.origin == origin]
        found = self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
        return {tick.status.value for tick in found}

    def tick_log(self, sensor: str) -> Path:
        """The file with the log of a new tick."""
        logs, key = self.instance.compute_log_manager, ["ours", sensor, str(time.time_ns())]
        assert isinstance(logs, LocalComputeLogManager)
        with logs.open_log_stream(key, ComputeIOType.STDERR) as log:
            assert log is not None
            log.write("a line of a tick")
        return Path(logs.get_captured_local_path(key, "err"))

    def kept(self, run_ids: list[str]) -> list[bool]:
        return [self.instance.get_run_by_id(run_id) is not None for run_id in run_ids]

    def files(self, run_id: str) -> list[Path]:
        """Every file on disk whose path names the run."""
        return [path for path in self.folder.rglob("*") if path.is_file() and run_id in str(path)]

    def bytes_on_disk(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

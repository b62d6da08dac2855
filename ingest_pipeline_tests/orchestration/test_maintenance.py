"""What the daily job deletes and keeps, on a real instance with its files on disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickData, TickStatus
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.test_utils import create_run_for_test
from dagster_shared.error import SerializableErrorInfo

import ingest_pipeline
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.jobs import maintenance
from ingest_pipeline.settings import load_settings
from ingest_pipeline.testing import MemoryDatabase, MemoryLedger, SettableClock
from ingest_pipeline_tests.samples import READING

ROOT = Path(ingest_pipeline.__file__).parents[1]
DAY = 86_400.0
SENSOR = "busy_sensor"
OURS = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "ours")
THEIRS = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("there"), "ours")
"""Another code location. Dagster gives its repository the same name."""


@dg.asset(key="busy")
def busy() -> dg.MaterializeResult[None]:
    print("a line for the compute log")
    return dg.MaterializeResult(metadata={"rows": 1})


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


FOREIGN_JOBS = [anything.to_job(name, executor_def=dg.in_process_executor) for name in tags.OTHER_JOBS]
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

    def kept(self, run_ids: list[str]) -> list[bool]:
        return [self.instance.get_run_by_id(run_id) is not None for run_id in run_ids]

    def files(self, run_id: str) -> list[Path]:
        """Every file on disk whose path names the run."""
        return [path for path in self.folder.rglob("*") if path.is_file() and run_id in str(path)]

    def bytes_on_disk(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield Keeper(instance, tmp_path / ".dagster_storage")


def test_old_runs_go_with_their_files_and_the_newest_stay(keeper: Keeper) -> None:
    runs = keeper.run("busy", 4)
    kinds = {path.suffix for path in keeper.files(runs[0])}
    assert {".db", ".out", ".err"} <= kinds
    before = keeper.bytes_on_disk()
    keeper.maintain(8, keep=2)
    assert keeper.kept(runs) == [False, False, True, True]
    assert [bool(keeper.files(run_id)) for run_id in runs] == [False, False, True, True]
    assert keeper.bytes_on_disk() < before


def test_young_runs_stay(keeper: Keeper) -> None:
    runs = keeper.run("busy", 3)
    keeper.maintain(6)
    assert keeper.kept(runs) == [True, True, True]


def test_failures_stay_longer(keeper: Keeper) -> None:
    runs = keeper.run("broken", 2)
    keeper.maintain(29)
    assert keeper.kept(runs) == [True, True]
    keeper.maintain(31)
    assert keeper.kept(runs) == [False, False]


def test_a_quiet_stream_still_shows_its_last_materialization(keeper: Keeper) -> None:
    runs = keeper.run("quiet", 2)
    keeper.run("busy", 1)
    keeper.maintain(400)
    assert keeper.kept(runs) == [False, True]
    event = keeper.instance.get_latest_materialization_event(dg.AssetKey("quiet"))
    assert event is not None
    assert event.run_id == runs[-1]
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["rows"].value == 2


def test_each_stream_keeps_its_own_newest(keeper: Keeper) -> None:
    quiet_runs = keeper.run("quiet", 2)
    keeper.run("busy", 3)
    keeper.maintain(400, keep=2)
    assert keeper.kept(quiet_runs) == [True, True]


def test_runs_of_other_jobs_are_left_alone(keeper: Keeper) -> None:
    """Also those in which one of our assets ran, and left its tags."""
    foreign = keeper.run("busy", 2, job="their_job")
    plain = [DEFINITIONS.resolve_job_def("their_job").execute_in_process(instance=keeper.instance).run_id]
    keeper.maintain(400)
    assert keeper.kept(foreign + plain) == [True, True, True]


def test_jobs_of_our_names_that_are_somebody_elses_keep_runs_and_files(keeper: Keeper) -> None:
    """The instance's logs lie in one folder, one sub-folder for each run, whoever's it is."""
    foreign = [job.execute_in_process(instance=keeper.instance).run_id for job in FOREIGN_JOBS]
    stamp = {tags.STREAM: "busy", tags.SHARD: "0/1"}
    foreign.append(keeper.execute(DEFINITIONS.resolve_job_def("drain_busy"), THEIRS, **stamp))
    files = {run_id: keeper.files(run_id) for run_id in foreign}
    assert all({".out", ".err"} <= {path.suffix for path in found} for found in files.values())
    mine = keeper.run("busy", 3)
    keeper.maintain(400)
    assert keeper.kept(foreign) == [True] * len(foreign)
    assert {run_id: keeper.files(run_id) for run_id in foreign} == files
    assert keeper.kept(mine) == [False, False, True]
    assert [bool(keeper.files(run_id)) for run_id in mine] == [False, False, True]


def test_a_living_run_keeps_its_log(keeper: Keeper) -> None:
    ours = DEFINITIONS.resolve_job_def("drain_busy")
    living = keeper.instance.create_run_for_job(
        ours, status=dg.DagsterRunStatus.STARTED, tags={tags.STREAM: "busy", tags.SHARD: "0/1"}
    )
    key = [living.run_id, "compute_logs", "busy"]
    with keeper.instance.compute_log_manager.open_log_stream(key, ComputeIOType.STDERR) as log:
        assert log is not None
        log.write("a batch\n")
        mine = keeper.run("busy", 2)
        keeper.maintain(400)
        log.write("the next batch\n")
    assert keeper.kept([*mine, living.run_id]) == [False, True, True]
    assert keeper.instance.compute_log_manager.get_log_data(key).stderr == b"a batch\nthe next batch\n"


def test_a_run_by_hand_that_holds_a_foreign_asset_stays(keeper: Keeper) -> None:
    job = DEFINITIONS.resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey("busy"), dg.AssetKey("theirs")]
    mixed = job.execute_in_process(instance=keeper.instance, asset_selection=keys).run_id
    keeper.instance.add_run_tags(mixed, {tags.STREAM: "busy"})
    job.execute_in_process(instance=keeper.instance, asset_selection=keys)  # neither asset's last is in the first run
    keeper.maintain(400)
    assert keeper.kept([mixed]) == [True]


def test_runs_by_hand_go_too(keeper: Keeper) -> None:
    job = DEFINITIONS.resolve_implicit_global_asset_job_def()
    runs = []
    for _ in range(2):
        result = job.execute_in_process(instance=keeper.instance, asset_selection=[dg.AssetKey("busy")])
        keeper.instance.add_run_tags(result.run_id, {tags.STREAM: "busy"})
        runs.append(result.run_id)
    keeper.maintain(8)
    assert keeper.kept(runs) == [False, True]


def test_its_own_runs_go_too(keeper: Keeper) -> None:
    keeper.maintain(0)
    (first,) = [record.dagster_run.run_id for record in keeper.instance.get_run_records()]
    keeper.maintain(8)
    assert keeper.kept([first]) == [False]


def test_ticks_that_launched_a_run_or_failed_go_when_their_runs_would(keeper: Keeper) -> None:
    """Those of somebody else's sensors stay, also of one with our name."""
    keeper.tick(SENSOR)
    keeper.tick("theirs")
    keeper.tick(SENSOR, THEIRS)
    keeper.maintain(6)
    assert keeper.ticks(SENSOR) == {"SUCCESS", "FAILURE"}
    keeper.maintain(8)
    assert keeper.ticks(SENSOR) == {"FAILURE"}
    keeper.maintain(31)
    assert keeper.ticks(SENSOR) == set()
    assert keeper.ticks("theirs") == {"SUCCESS", "FAILURE"}
    assert keeper.ticks(SENSOR, THEIRS) == {"SUCCESS", "FAILURE"}


def test_runs_of_a_job_of_several_streams_are_deleted_too() -> None:
    """Their tag names the job. A job of that name in another project has no such tag."""
    with dg.DagsterInstance.ephemeral() as instance:
        status = dg.DagsterRunStatus.SUCCESS
        ours = create_run_for_test(instance, "drain_sites", status=status, tags={tags.DRAINS: "sites"})
        create_run_for_test(instance, "drain_sites", status=status, tags={tags.DRAINS: "others"})
        create_run_for_test(instance, "drain_sites", status=status)
        records, now = instance.get_run_records(), time.time() + 400 * DAY
        rules: dict[str, Any] = dict(now=now, days=1, failed_days=1, keep=0, protected=set())
        assert maintenance.runs_to_delete(records, None, [], **rules) == [ours.run_id]

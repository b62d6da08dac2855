"""What the daily job deletes and keeps, on a real instance with its files on disk."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.test_utils import create_run_for_test

import ingest_pipeline
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.jobs import maintenance
from ingest_pipeline_tests.orchestration.keeper import DAY, DEFINITIONS, FOREIGN_JOBS, SENSOR, THEIRS, Keeper

ROOT = Path(ingest_pipeline.__file__).parents[1]


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


def test_logs_of_ticks_go_when_the_ticks_of_failures_would(keeper: Keeper) -> None:
    """Dagster has deleted the ticks without a run by then. The logs of somebody else's sensors stay."""
    keeper.tick(SENSOR)
    mine, theirs = keeper.tick_log(SENSOR), keeper.tick_log("theirs")
    keeper.maintain(29)
    assert mine.is_file()
    keeper.maintain(31)
    assert (mine.exists(), theirs.exists()) == (False, True)


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

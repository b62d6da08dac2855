"""Dagster's storage in SQLite and in PostgreSQL: `ingest check` writes to it, and maintenance keeps it small."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance import RUNLESS_RUN_ID
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageMetadata,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunStorageSqlMetadata
from dagster._core.storage.schedules import SqlScheduleStorage
from dagster._core.storage.schedules.schema import ScheduleStorageSqlMetadata
from sqlalchemy import func, select
from sqlalchemy.engine import make_url

import ingest_pipeline
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.finding import Finding
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.instance_check import instance_findings
from ingest_pipeline.orchestration.jobs.retention import purge_events
from ingest_pipeline.settings import load_settings
from ingest_pipeline_tests.orchestration.keeper import DEFINITIONS, SENSOR, Keeper

ROOT = Path(ingest_pipeline.__file__).parents[1]
PRICE, TOPIC, OTHER = dg.AssetKey("price"), dg.AssetKey(["kafka", "price"]), dg.AssetKey("theirs")
Configure = Callable[[str], Path]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Configure:
    """Write the folder of an instance, and let DAGSTER_HOME name it."""

    def write(kind: str) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
        if kind == "sqlite":
            shutil.copy(ROOT / "dagster.yaml", tmp_path)
            return tmp_path
        url = make_url(request.getfixturevalue("database_url"))
        settings = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
        settings["storage"]["postgres"]["postgres_db"]["port"] = url.port
        for part in ("compute_logs", "local_artifact_storage"):
            settings[part]["config"]["base_dir"] = str(tmp_path)
        (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
        environ = {"HOST": url.host, "USER": url.username, "PASSWORD": url.password, "DB": url.database}
        for name, value in environ.items():
            monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", value or "none")
        return tmp_path

    return write


@pytest.fixture(params=["sqlite", "postgres"])
def instance(configure: Configure, request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(configure(request.param))) as instance:
        yield instance


def finding() -> Finding:
    (found,) = [
        record for record in instance_findings(Clients(load_settings([], {})), []) if record.what == "Dagster's storage"
    ]
    return found


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_check_creates_a_run_and_an_event_and_leaves_neither(configure: Configure, kind: str) -> None:
    folder = configure(kind)
    assert finding() == Finding(True, "Dagster's storage", "takes runs and events")
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        assert instance.get_runs() == []


def test_check_names_the_wrong_driver(configure: Configure) -> None:
    folder = configure("postgres")
    text = (folder / "dagster.yaml").read_text()
    assert "postgresql+psycopg2" in text
    (folder / "dagster.yaml").write_text(text.replace("postgresql+psycopg2", "postgresql"))
    found = finding()
    assert not found.ok
    assert "must begin with postgresql+psycopg2://" in found.message


def evaluations(instance: dg.DagsterInstance) -> dict[str, int]:
    """Asset → evaluations of checks in the storage."""
    asset_key = AssetCheckExecutionsTable.c.asset_key
    with sql(instance).index_connection() as connection:
        return dict(map(tuple, connection.execute(select(asset_key, func.count()).group_by(asset_key))))


def events_without_run(instance: dg.DagsterInstance) -> int:
    of_no_run = SqlEventLogStorageTable.c.run_id == RUNLESS_RUN_ID
    with sql(instance).index_connection() as connection:
        return int(connection.execute(select(func.count()).where(of_no_run)).scalar_one())


def sql(instance: dg.DagsterInstance) -> SqlEventLogStorage:
    assert isinstance(instance.event_log_storage, SqlEventLogStorage)
    return instance.event_log_storage


def test_old_evaluations_and_events_go_and_the_newest_stay(instance: dg.DagsterInstance) -> None:
    price, other = PRICE.to_string(), OTHER.to_string()
    for number in range(3):
        for key in (PRICE, OTHER):
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(asset_key=key, check_name="up_to_date", passed=number == 2)
            )
        instance.report_runless_asset_event(dg.AssetObservation(TOPIC, metadata={"lag": number}))
    assert purge_events(instance, [PRICE, TOPIC], time.time() - 86_400) == 0
    assert evaluations(instance) == {price: 3, other: 3}
    assert events_without_run(instance) == 9
    assert purge_events(instance, [PRICE, TOPIC], time.time() + 86_400) == 4
    assert evaluations(instance) == {price: 1, other: 3}, "those of another project stay"
    assert events_without_run(instance) == 5
    (record,) = instance.fetch_observations(TOPIC, limit=9).records
    assert record.asset_observation is not None
    assert record.asset_observation.metadata["lag"].value == 2
    check = dg.AssetCheckKey(PRICE, "up_to_date")
    (newest,) = instance.event_log_storage.get_asset_check_execution_history(check, limit=9)
    assert newest.event is not None


def counts(instance: dg.DagsterInstance, folder: Path) -> dict[str, int]:
    """Table of Dagster's storage → rows, and the number of files."""
    runs, schedules = instance.run_storage, instance.schedule_storage
    assert isinstance(runs, SqlRunStorage)
    assert isinstance(schedules, SqlScheduleStorage)
    found = {"files": sum(path.is_file() for path in folder.rglob("*"))}
    for connect, metadata in (
        (runs.connect, RunStorageSqlMetadata),
        (sql(instance).index_connection, SqlEventLogStorageMetadata),
        (schedules.connect, ScheduleStorageSqlMetadata),
    ):
        with connect() as connection:
            for table in metadata.sorted_tables:
                count = connection.execute(select(func.count()).select_from(table)).scalar_one()
                found[f"{metadata.sorted_tables[0].name}: {table.name}"] = int(count)
    return found


def use(keeper: Keeper) -> None:
    """Runs by sensors and by hand, a failed run, checks and events with and without runs, ticks and their logs."""
    instance = keeper.instance
    keeper.run("busy", 2)
    keeper.run("broken")
    by_hand = DEFINITIONS.resolve_implicit_global_asset_job_def()
    run_id = by_hand.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("busy")]).run_id
    instance.add_run_tags(run_id, {tags.STREAM: "busy"})
    keeper.tick(SENSOR)
    keeper.tick_log(SENSOR)
    for _ in range(2):
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=dg.AssetKey("busy"), check_name="up_to_date", passed=True)
        )
        instance.report_runless_asset_event(dg.AssetObservation("busy", tags={"part": "two"}))
        instance.report_runless_asset_event(dg.AssetObservation(["kafka", "busy"], metadata={"lag": 0}))


def test_no_table_and_no_folder_grows_for_ever(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    keeper, after = Keeper(instance, tmp_path), []
    for _ in range(3):
        use(keeper)
        keeper.maintain(400)
        after.append(counts(instance, tmp_path))
    assert after[2] == after[1]

"""Definitions as Dagster loads them: without an environment, without heavy imports, into anybody's project."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.launcher import DefaultRunLauncher
from dagster._core.run_coordinator import DefaultRunCoordinator
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.workspace.load import load_workspace_process_context_from_yaml_paths

import ingest_pipeline
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.orchestration.jobs.operator_jobs import OPERATIONS
from ingest_pipeline.settings import Settings, load_settings
from ingest_pipeline.streams import STREAMS

ROOT = Path(ingest_pipeline.__file__).parents[1]
HEAVY = {
    "alembic",
    "celery",
    "confluent_kafka",
    "dagster_celery",
    "dagster_k8s",
    "kubernetes",
    "psycopg",
    "redis",
    "sqlalchemy",
}
LOAD = """
import json, sys
import dagster
dagster.Definitions().resolve_all_job_defs()
before = set(sys.modules)
from ingest_pipeline.definitions import defs
jobs = [job.name for job in defs.resolve_all_job_defs()]
print(json.dumps([sorted(set(sys.modules) - before), jobs]))
"""


def load(**environ: str) -> tuple[set[str], set[str]]:
    """(modules that Dagster itself does not load, jobs) of a new process that loads the definitions in this folder,
    with this environment alone."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", LOAD]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules, jobs = json.loads(done.stdout)
    return set(modules), set(jobs)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def defaults() -> Settings:
    return load_settings([stream.name for stream in STREAMS], {})


class TestLoading:
    def test_it_needs_no_environment_and_no_client(self, empty_folder: Path) -> None:
        modules, jobs = load(PYTHONPATH=str(ROOT))
        assert {name for name in modules if name.split(".")[0] in HEAVY} == set()
        assert not {name for name in modules if name.startswith(("ingest_pipeline.demo", "ingest_pipeline.testing"))}
        assert {"drain_temperature", "drain_price", "maintenance", "pause_stream", "resume_stream"} <= jobs
        assert list(empty_folder.iterdir()) == []

    def test_a_fault_of_the_environment_is_named(self, empty_folder: Path) -> None:
        with pytest.raises(AssertionError, match="BATCH_SIZE must be"):
            load(PYTHONPATH=str(ROOT), BATCH_SIZE="many")


class TestParts:
    def test_all_follow_from_a_stream(self) -> None:
        definitions = build_definitions(STREAMS, defaults())
        names = {key.to_user_string() for key in definitions.resolve_all_asset_keys()}
        assert names == {"temperature", "price", "kafka/temperature", "kafka/price"}
        assert {sensor.name for sensor in definitions.sensors or ()} == {"temperature_sensor", "price_sensor"}
        for name in ("temperature", "price"):
            sensor = definitions.resolve_sensor_def(f"{name}_sensor")
            assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
            assert sensor.minimum_interval_seconds == 1
            assert sensor.job_name == f"drain_{name}"
        schedule = definitions.resolve_schedule_def("maintenance_schedule")
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING

    def test_the_shipped_streams_keep_their_consumer_groups_and_tags(self) -> None:
        graph = build_definitions(STREAMS, defaults()).resolve_asset_graph()
        groups = {name: graph.get(dg.AssetKey(name)).metadata["group_id"] for name in ("temperature", "price")}
        assert groups == {"temperature": "ingest-temperature", "price": "ingest-price"}
        assert (tags.STREAM, tags.SHARD) == ("ingest/stream", "ingest/shard")
        assert (tags.DEFINITION, tags.ENDED) == ("ingest/stream_definition", "ingest/ended")

    def test_a_stream_with_another_job_is_drained_and_watched_in_its_name(self) -> None:
        streams = [replace(stream, job=f"{stream.name}_site") for stream in STREAMS]
        environ = {"PRICE_SITE_POLL_SECONDS": "7", "PRICE_BATCH_SIZE": "9"}
        settings = load_settings({stream.name: stream.job for stream in streams}, environ)
        definitions = build_definitions(streams, settings)
        sensor = definitions.resolve_sensor_def("price_site_sensor")
        assert (sensor.job_name, sensor.minimum_interval_seconds) == ("drain_price_site", 7)
        assert definitions.resolve_job_def("drain_price_site").asset_layer.selected_asset_keys == {dg.AssetKey("price")}

    def test_a_table_follows_its_topic_in_the_lineage(self) -> None:
        graph = build_definitions(STREAMS, defaults()).resolve_asset_graph()
        table, topic = graph.get(dg.AssetKey("price")), graph.get(dg.AssetKey(["kafka", "price"]))
        assert table.parent_keys == {topic.key}
        assert (table.kinds, topic.kinds) == ({"postgres"}, {"kafka"})
        assert topic.is_external
        assert not table.is_external
        assert {table.group_name, topic.group_name} == {"ingest"}
        assert table.metadata["dagster/table_name"] == "public.price"
        columns = {column.name: column.type for column in table.metadata["dagster/column_schema"].columns}
        assert columns == {
            "kafka_incarnation": "smallint",
            "kafka_partition": "integer",
            "kafka_offset": "bigint",
            "symbol": "text",
            "price": "double precision",
            "event_time": "timestamp with time zone",
            "kafka_timestamp": "timestamp with time zone",
            "ingested_at": "timestamp with time zone",
        }
        assert table.metadata["group_id"] == "ingest-price"

    def test_owners_and_tags_are_the_streams_own(self) -> None:
        owned = replace(STREAMS[0], owners=("team:weather", "somebody@example.com"), tags={"tier": "gold"})
        graph = build_definitions([owned], defaults()).resolve_asset_graph()
        asset = graph.get(dg.AssetKey("temperature"))
        assert list(asset.owners) == ["team:weather", "somebody@example.com"]
        assert asset.tags["tier"] == "gold"

    def test_run_config_names_no_server_no_table_and_no_secret(self) -> None:
        letters = {"stage", "sqlstate", "reason", "since", "until", "ids"}
        fields = {
            "pause_stream": {"reason"},
            "resume_stream": set(),
            "accept_loss": {"partition", "start", "dismiss"},
            "redrive_dead_letters": letters,
            "discard_dead_letters": letters,
            "allow_dead_letters": {"count"},
            "acknowledge_dead_letters": set(),
            "replay": {"partition", "from_offset", "to_offset", "from_time", "to_time"},
        }
        assert {name: names for name, names in self.config_fields().items() if names} == {
            name: {"stream", "dry_run", *own} for name, own in fields.items()
        }

    def test_every_job_that_drains_nothing_bears_its_tag(self) -> None:
        jobs = build_definitions(STREAMS, defaults()).resolve_all_job_defs()
        drains = {tags.job_name(stream.job) for stream in STREAMS} | {tags.BY_HAND}
        assert {job.name: job.tags.get(tags.JOB) for job in jobs} == {
            job.name: None if job.name in drains else job.name for job in jobs
        }

    def config_fields(self) -> dict[str, set[str]]:
        """Job → what its ops take in run config; Dagster refuses whatever else is given."""
        return {
            job.name: {
                field
                for node in job.graph.node_defs
                if (schema := node.config_schema) is not None and schema.as_field() is not None
                for field in getattr(schema.as_field().config_type, "fields", None) or {}
            }
            for job in build_definitions(STREAMS, defaults()).resolve_all_job_defs()
        }

    def test_no_op_is_retried(self) -> None:
        """Dagster's retry policy would start a terminated op again."""
        for job in build_definitions(STREAMS, defaults()).resolve_all_job_defs():
            assert all(node.definition.retry_policy is None for node in job.graph.node_dict.values())

    def test_the_launchpad_knows_the_streams_of_its_own_definitions(self) -> None:
        """Dagster keeps enums by their names, for the whole process."""
        for stream, other in (STREAMS, reversed(STREAMS)):
            defs = build_definitions([stream], defaults())
            for name in (operation.__name__ for operation in OPERATIONS):
                job, own = defs.resolve_job_def(name), {"count": 1} if name == "allow_dead_letters" else {}
                ours, theirs = (
                    {"ops": {f"{name}_op": {"config": {"stream": of.name, **own}}}} for of in (stream, other)
                )
                dg.validate_run_config(job, ours)
                with pytest.raises(dg.DagsterInvalidConfigError):
                    dg.validate_run_config(job, theirs)


class TestInAnotherProject:
    def test_it_merges_with_what_is_there(self) -> None:
        @dg.asset(deps=[dg.AssetKey(["raw", "price"])])
        def report() -> None: ...

        ours = build_definitions(STREAMS, defaults(), key_prefix=["raw"], group="streaming")
        assert ours.executor is None
        assert not ours.resources
        theirs = dg.Definitions(
            [report], executor=dg.multiprocess_executor, resources={"io_manager": dg.mem_io_manager}
        )
        both = dg.Definitions.merge(ours, theirs)
        dg.Definitions.validate_loadable(both)
        graph = both.resolve_asset_graph()
        keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
        assert keys == {"report", "raw/temperature", "raw/price", "raw/kafka/temperature", "raw/kafka/price"}
        assert graph.get(dg.AssetKey(["raw", "price"])).group_name == "streaming"
        assert graph.get(dg.AssetKey("report")).parent_keys == {dg.AssetKey(["raw", "price"])}
        assert both.resolve_job_def("drain_price").executor_def is dg.in_process_executor


class TestInstance:
    @pytest.fixture
    def instance_folder(self, empty_folder: Path) -> Path:
        shutil.copy(ROOT / "dagster.yaml", empty_folder)
        return empty_folder

    def test_its_parts_can_be_made(self, instance_folder: Path) -> None:
        """A wrong class name kills the daemon without a word."""
        with dg.DagsterInstance.from_config(str(instance_folder)) as instance:
            assert type(instance.run_coordinator) is DefaultRunCoordinator
            assert type(instance.run_launcher) is DefaultRunLauncher
            assert type(instance.compute_log_manager) is LocalComputeLogManager
            assert instance.run_monitoring_enabled
            assert instance.freshness_enabled
            assert instance.run_monitoring_poll_interval_seconds <= 10
            assert instance.run_monitoring_max_runtime_seconds > 86_400
            assert instance.get_settings("sensors")["use_threads"] is True
            assert instance.get_tick_retention_settings(InstigatorType.SENSOR)[TickStatus.SKIPPED] == 1
            assert not instance.telemetry_enabled
            assert not instance.nux_enabled

    def test_everything_is_kept_in_one_folder(self, instance_folder: Path) -> None:
        with dg.DagsterInstance.from_config(str(instance_folder)) as instance:

            @dg.job
            def nothing() -> None: ...

            nothing.execute_in_process(instance=instance)
        assert {path.name for path in instance_folder.iterdir()} == {"dagster.yaml", ".dagster_storage"}

    def test_the_workspace_loads(self, instance_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the same code server that the daemon and the webserver use."""
        monkeypatch.setenv("PYTHONPATH", str(ROOT) + os.pathsep + os.environ.get("PYTHONPATH", ""))
        assert yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
        with (
            dg.DagsterInstance.from_config(str(instance_folder)) as instance,
            load_workspace_process_context_from_yaml_paths(instance, [str(ROOT / "workspace.yaml")]) as context,
        ):
            (entry,) = context.create_request_context().get_code_location_entries().values()
            assert entry.load_error is None
            assert entry.code_location is not None
            (repository,) = entry.code_location.get_repositories().values()
            sensors = {sensor.name for sensor in repository.get_sensors()}
        assert sensors == {"temperature_sensor", "price_sensor"}

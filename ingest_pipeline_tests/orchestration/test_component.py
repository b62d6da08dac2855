"""The Component KafkaToPostgres, loaded by Dagster itself: the example project, faults in YAML, and the tool `dg`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ingest_pipeline import KafkaToPostgres, Stream, build_definitions, project_streams
from ingest_pipeline.orchestration import tags
from ingest_pipeline.settings import settings_of
from ingest_pipeline.settings.streams import load_streams

pytestmark = [  # Dagster's own calls
    pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated"),
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.PreviewWarning"),
]

EXAMPLE = Path(__file__).parents[2] / "examples" / "dg_project"
READING = EXAMPLE / "src/dg_project/defs/reading/defs.yaml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the example."""
    copy = tmp_path / "dg_project"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(copy / "src")
    monkeypatch.chdir(copy)
    for name in ("DATABASE_URL", "INGEST_STREAMS"):
        monkeypatch.delenv(name, raising=False)
    yield copy
    for name in [name for name in sys.modules if name.split(".")[0] == "dg_project"]:
        del sys.modules[name]


def loaded(project: Path) -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=project)


def names(definitions: dg.Definitions) -> dict[str, set[str]]:
    repository = definitions.get_repository_def()
    return {
        "assets": {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()},
        "checks": {key.to_user_string() for key in repository.asset_graph.asset_check_keys},
        "jobs": {job for job in repository.job_names if not job.startswith("__")},
        "sensors": {sensor.name for sensor in repository.sensor_defs},
        "schedules": {schedule.name for schedule in repository.schedule_defs},
    }


def write(project: Path, name: str, text: str) -> None:
    (project / "src/dg_project/defs" / name).mkdir(parents=True, exist_ok=True)
    (project / "src/dg_project/defs" / name / "defs.yaml").write_text(text)


def chain(error: BaseException | None) -> str:
    """The messages of an error and its causes."""
    return "" if error is None else f"{error}\n{chain(error.__cause__)}"


class TestDefinitions:
    def test_they_are_those_of_the_streams_in_python(self, project: Path) -> None:
        assert names(loaded(project)) == names(build_definitions(project_streams(project)))

    def test_streams_of_two_components_share_a_job(self, project: Path) -> None:
        definitions = loaded(project)
        keys = definitions.resolve_job_def("drain_sites").asset_layer.selected_asset_keys
        assert keys == {dg.AssetKey("climate"), dg.AssetKey("door")}
        assert names(definitions)["sensors"] == {"reading_sensor", "sites_sensor"}

    def test_components_share_one_set_of_clients(self, project: Path) -> None:
        tree = dg.ComponentTree.for_project(project)
        components = tree.get_all_components(of_type=KafkaToPostgres)
        tree.build_defs()
        assert [component._location is None for component in components] == [False, True, True]

    def test_their_settings_count_below_the_environment(self, project: Path) -> None:
        settings = settings_of(project_streams(project), {"READING_MAX_DELAY_SECONDS": "9", "BATCH_SIZE": "3"})
        reading = settings.for_stream("reading")
        assert (reading.batch_size, reading.max_delay_seconds) == (5000, 9)
        assert settings.for_job("sites").parallelism == 2

    def test_commands_read_the_same_streams(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INGEST_STREAMS", "dg_project.streams:STREAMS")
        assert [stream.name for stream in load_streams()] == ["reading", "climate", "door"]

    def test_another_process_gets_the_same_definition(self, project: Path) -> None:
        """The sensor's process writes the hash into a run's tags, and the next tick compares it."""
        code = "from dg_project.streams import STREAMS; print(*(stream.definition() for stream in STREAMS))"
        environ = {**os.environ, "PYTHONPATH": "src", "PYTHONHASHSEED": "7"}
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
        streams: list[Stream] = project_streams(project)
        assert done.stdout.split() == [stream.definition() for stream in streams]
        assert len({tags.definition_of(stream, settings_of(streams, {})) for stream in streams}) == 3

    def test_a_template_is_rendered(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = READING.read_text().replace("meters.readings", "'{{ env.METERS }}'")
        write(project, "reading", text)
        monkeypatch.setenv("METERS", "meters.v2")
        assert project_streams(project)[0].topic == "meters.v2"

    def test_the_groups_of_assets_are_dagsters_to_change(self, project: Path) -> None:
        more = "post_processing:\n  assets:\n    - attributes: {group_name: meters}\n"
        write(project, "reading", READING.read_text() + more)
        graph = loaded(project).resolve_asset_graph()
        groups = {name: graph.get(dg.AssetKey(name)).group_name for name in ("reading", "door")}
        assert groups == {"reading": "meters", "door": "ingest"}


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("kilowatts: {type: float", "kilowatts: {type: flaot", 15, "there is no type 'flaot'"),
        ("city: str", "city: text", 24, "there is no type 'text'"),
        ("topic: meters.readings", "topic: meters readings", 5, "is not a name Kafka allows"),
        ("batch_size: 5000", "batch_size: 0", 33, "READING_BATCH_SIZE must be a whole number from 1 to 100000"),
        ("extra_column: extra", "extra_column: meter", 11, "Reading has a field of that name"),
        ("batch_size:", "batch_sise:", 33, "Extra inputs are not permitted"),
        ("{epoch: ms}", "{epoch: min}", 16, "Input should be 'd', 's', 'ms', 'us' or 'ns'"),
        ("topic: meters.readings", "topic: '{{ env.NO_SUCH }}'", 5, "topic: Input should be a valid string"),
    ],
)
def test_a_fault_is_named_with_its_file_and_line(project: Path, old: str, new: str, line: int, words: str) -> None:
    write(project, "reading", READING.read_text().replace(old, new))
    with pytest.raises(Exception, match="reading") as refused:
        loaded(project)
    message = chain(refused.value)
    assert words in message
    assert f"defs/reading/defs.yaml:{line}" in message


def test_a_fault_in_a_route_is_named_with_its_line(project: Path) -> None:
    write(project, "event", "type: ingest_pipeline.KafkaToPostgres\nattributes:\n" + ROUTED)
    assert "clicks" in {table.table for stream in project_streams(project) for table in stream.tables}
    write(
        project,
        "event",
        "type: ingest_pipeline.KafkaToPostgres\nattributes:\n" + ROUTED.replace("url: str", "url: text"),
    )
    with pytest.raises(Exception, match="event") as refused:
        loaded(project)
    message = chain(refused.value)
    assert "there is no type 'text'" in message
    assert "defs/event/defs.yaml:10" in message


ROUTED = """  name: event
  fields: {kind: str}
  route:
    field: kind
    tables:
      click:
        table: clicks
        fields: {url: str}
"""


def test_a_clash_names_both_files(project: Path) -> None:
    write(project, "copy", "type: ingest_pipeline.KafkaToPostgres\nattributes:\n" + CLASH)
    with pytest.raises(Exception, match="defs") as refused:
        loaded(project)
    message = chain(refused.value)
    assert "share the topic 'meters.readings'" in message
    assert "stream reading: src/dg_project/defs/reading/defs.yaml:3" in message
    assert "stream again: src/dg_project/defs/copy/defs.yaml:2" in message


CLASH = "  name: again\n  topic: meters.readings\n  fields: {a: str}\n"


def dg_tool(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`dg` in a process of its own, which may not report anything to anybody."""
    environ = {**os.environ, "PYTHONPATH": "src", "DAGSTER_DISABLE_TELEMETRY": "1", "COLUMNS": "200"}
    environ |= {"HOME": str(project), "DG_CLI_CONFIG": str(project / "no.toml")}
    script = Path(sys.executable).with_name("dg")
    return subprocess.run([script, *words], cwd=project, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.slow
class TestDg:
    def test_the_component_is_listed(self, project: Path) -> None:
        done = dg_tool(project, "list", "components", "--package", "ingest_pipeline", "--json")
        assert done.returncode == 0, done.stderr
        assert '"key": "ingest_pipeline.KafkaToPostgres"' in done.stdout
        assert '"key": "ingest_pipeline.Stream"' not in done.stdout

    def test_a_scaffolded_stream_is_checked_and_loaded(self, project: Path) -> None:
        done = dg_tool(project, "scaffold", "defs", "ingest_pipeline.KafkaToPostgres", "price")
        assert done.returncode == 0, done.stderr
        done = dg_tool(project, "check", "defs")
        assert done.returncode == 0, done.stderr + done.stdout
        assert "price" in [stream.name for stream in project_streams(project)]

    def test_check_yaml_names_the_line(self, project: Path) -> None:
        text = READING.read_text().replace("batch_size:", "batch_sise:").replace("min_length: 1", "min_length: one")
        write(project, "reading", text)
        done = dg_tool(project, "check", "yaml", "src/dg_project/defs/reading")
        assert done.returncode == 1
        assert "reading/defs.yaml:33" in done.stdout + done.stderr
        assert "batch_sise" in done.stdout + done.stderr
        assert "reading/defs.yaml:14" in done.stdout + done.stderr

    def test_check_defs_names_the_line(self, project: Path) -> None:
        write(project, "reading", READING.read_text().replace("city: str", "city: text"))
        done = dg_tool(project, "check", "defs")
        assert done.returncode == 1
        output = "".join((done.stdout + done.stderr).split("\n"))
        assert "there is no type 'text'" in output
        assert "defs/reading/defs.yaml:24" in output

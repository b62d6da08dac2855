"""click accepts every `ingest …` of README, docs/ and the helps. The streams that pages add to streams.py work."""

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ingest_pipeline import streams
from ingest_pipeline.cli.main import main
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.settings.streams import load_streams
from ingest_pipeline_tests.declared import declare
from ingest_pipeline_tests.docs_commands import PAGES, ROOT, calls, check, command_of, names


@pytest.fixture(autouse=True)
def _declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the stream of docs/streams.md."""
    reading = replace(streams.STREAMS[0], name="reading", topic="", table="", job="")
    declare(monkeypatch, [*streams.STREAMS, reading])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_accept_their_arguments(page: Path) -> None:
    text = page.read_text()
    for words in names(text):
        command_of(words)
    for words in calls(text):
        check(words)


def test_the_commands_of_the_pages_are_found() -> None:
    readme, operations = ROOT / "README.md", ROOT / "docs/operations.md"
    assert ["replay", "price", "--partition", "0", "--from-offset", "1000", "--to-offset", "2000"] in calls(
        readme.read_text()
    )
    assert len(calls(readme.read_text())) >= 6
    assert len(calls(operations.read_text())) >= 12
    assert ["resume", "temperature"] in calls(operations.read_text())  # broken in two lines there


@pytest.mark.parametrize(
    "text",
    ["`ingest tail price -m 5`", "    ingest stats  # all", "`ingest status now`", "`ingest dead-letters show price`"],
)
def test_a_wrong_command_is_found(text: str) -> None:
    with pytest.raises(click.UsageError):
        for words in calls(text):
            check(words)


def commands(group: click.Group, path: str) -> list[tuple[str, click.Command]]:
    """The group and all of its commands."""
    context = click.Context(group)
    members: list[tuple[str, click.Command]] = [(path, group)]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = f"{path} {name}"
        members += commands(command, inner) if isinstance(command, click.Group) else [(inner, command)]
    return members


@pytest.mark.parametrize(("path", "command"), commands(main, "ingest"), ids=lambda value: str(value))
def test_the_example_of_every_help_works(path: str, command: click.Command) -> None:
    (example,) = re.findall(r"Example: (?:[A-Z_]+=\S+ )*(ingest .*)", command.help or "")
    assert example.startswith(path)
    check(shlex.split(example)[1:])


@pytest.mark.parametrize(("page", "name"), [("README.md", "humidity"), ("docs/streams.md", "reading")])
def test_the_stream_of_a_page(page: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's first block at the end of streams.py."""
    block = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)[0]
    shipped = Path(streams.__file__).read_text().replace("from .core.", "from ingest_pipeline.core.")
    (tmp_path / f"with_{name}.py").write_text(shipped + "\n\n" + block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("INGEST_STREAMS", f"with_{name}:STREAMS")
    declared = load_streams()
    monkeypatch.delitem(sys.modules, f"with_{name}")
    assert [stream.name for stream in declared] == ["temperature", "price", name]
    sensors = build_definitions(declared).get_repository_def().sensor_defs
    assert {sensor.name for sensor in sensors} == {"temperature_sensor", "price_sensor", f"{name}_sensor"}
    table = CliRunner().invoke(main, ["schema", name]).output
    value = {"humidity": "humidity", "reading": "kilowatts"}[name]
    assert f"CREATE TABLE public.{name}" in table
    assert re.search(rf"\b{value} double precision NOT NULL", table, re.IGNORECASE), table
    assert re.search(r"\bevent_time timestamp with time zone NOT NULL", table, re.IGNORECASE), table

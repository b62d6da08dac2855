"""docs/configuration.md matches the settings."""

import re
from collections import Counter
from pathlib import Path

import pytest

from ingest_pipeline.settings import load_settings
from ingest_pipeline.settings.docs import EXAMPLE, configuration_markdown, main
from ingest_pipeline.settings.variables import JOB_VARIABLES, SHARED_VARIABLES, STREAM_VARIABLES

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_in_the_repository_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(PAGE)]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [None, "", configuration_markdown() + "\n"])
def test_check_reports_a_difference_in_one_line(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "configuration.md"
    if content is not None:
        page.write_text(content, encoding="utf-8")
    assert main(["--check", str(page)]) == 1
    out = capsys.readouterr().out
    assert out == f"{page} is not up to date: python -m ingest_pipeline.settings.docs > {page}\n"


def test_without_arguments_the_page_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == configuration_markdown()


def test_every_setting_has_one_row() -> None:
    rows = Counter(re.findall(r"^\| `([A-Z_]+)` \|", configuration_markdown(), re.MULTILINE))
    for name in (*SHARED_VARIABLES, *STREAM_VARIABLES, *JOB_VARIABLES, "KAFKA_BOOTSTRAP_SERVERS"):
        assert rows[name] == 1, name


def test_the_page_does_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = configuration_markdown()
    monkeypatch.setenv("BATCH_SIZE", "7")
    assert configuration_markdown() == before


def test_tables_have_four_or_two_columns_throughout() -> None:
    for line in configuration_markdown().splitlines():
        if line.startswith("|"):
            assert line.count("|") in (3, 5), line


def test_the_example_loads() -> None:
    environ = dict(line.split("=", 1) for line in EXAMPLE.splitlines())
    settings = load_settings(("price", "temperature"), environ)
    assert settings.for_job("price").parallelism == 2
    assert settings.kafka["sasl.password"] == "change-me"

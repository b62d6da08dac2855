"""README and docs/ name existing make targets, links, settings, modules and outcome tags."""

import re
from pathlib import Path

import pytest

from ingest_pipeline.core.end_reasons import EndReason
from ingest_pipeline.settings import describe, load_settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SETTINGS = {row.name for row in describe(load_settings([], {}))}
OTHER_NAMES = {"COMMIT", "CHECK", "COPY", "SIGTERM", "SIGINT", "STREAMS", "CANCELED", "SUCCESS", "DAGSTER_HOME"}
DEPLOYMENT = "\n".join(
    (ROOT / name).read_text()
    for name in ("deploy/dagster.yaml", "deploy/Dockerfile", "deploy/celery/run_launcher.yaml", ".env.example")
)


def code(page: Path) -> list[str]:
    """Lines of indented blocks, and `inline` code."""
    text = page.read_text()
    blocks = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return blocks + re.findall(r"`([^`\n]+)`", text)


def anchors(page: Path) -> list[str]:
    """The anchors that Markdown viewers give the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_a_target(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if "://" not in target:
            linked = page.parent / target if target else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    for line in code(page):
        for word in re.findall(r"(?:^|; )make ([a-z-]+)", line):
            assert word in TARGETS, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    folders = "cli|core|demo|kafka|local|operations|orchestration|postgres|settings|testing"
    for path in re.findall(rf"`((?:{folders})/[a-z_*/]*(?:\.py)?)`", page.read_text()):
        assert (ROOT / "ingest_pipeline" / path).exists(), path


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "configuration.md"], ids=lambda page: page.name
)
def test_settings_exist(page: Path) -> None:
    named = set(re.findall(r"\b[A-Z]{3,}(?:_[A-Z]+)+\b", page.read_text()))
    unknown = {name for name in named - SETTINGS - OTHER_NAMES if not name.startswith("KAFKA_")}
    unknown -= set(re.findall(r"\b[A-Z_]+\b", DEPLOYMENT))
    assert not {name for name in unknown if not any(name.endswith(f"_{setting}") for setting in SETTINGS)}


def test_every_end_reason_of_a_run_is_explained() -> None:
    explained = (ROOT / "docs" / "operations.md").read_text()
    assert [reason for reason in EndReason if f"| `{reason}` |" not in explained] == []

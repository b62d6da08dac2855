"""The demo with its UI in a browser, once for a test module, in a clone to which README's third stream was added."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from ingest_pipeline_tests.integration.running_demo import ROOT, RunningDemo
from ingest_pipeline_tests.ui.pages import Ui

# Prices come in short runs, so that one has ended soon; temperatures in one that is there to be terminated.
_SETTINGS = {"PRICE_RUN_MAX_SECONDS": "40", "TEMPERATURE_RUN_MAX_SECONDS": "3600", "REPORT_SECONDS": "3"}
_WAIT_SECONDS = 90


@pytest.fixture(scope="module")
def demo(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """Rows are in every table, of which one record in a thousand was refused."""
    clone = _with_third_stream(tmp_path_factory.mktemp("clone"))
    with RunningDemo(clone, "--rate", "300", PYTHONPATH=str(clone), **_SETTINGS) as running:
        running.wait_for("rows in every table", 300)
        yield running
        running.send(signal.SIGTERM)
        assert running.end() == 0, running.said


def _with_third_stream(folder: Path) -> Path:
    """The package there, its streams.py edited as README has it."""
    package = folder / "ingest_pipeline"
    shutil.copytree(ROOT / "ingest_pipeline", package, ignore=shutil.ignore_patterns("__pycache__"))
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    streams = package / "streams.py"
    before, _, _ = streams.read_text().partition("STREAMS = [")
    streams.write_text(before + block)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the pages go: the folder that SCREENSHOTS names, by default one that nobody keeps."""
    named = os.environ.get("SCREENSHOTS")
    return Path(named) if named else tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """One for all pages, so that the UI's scripts are loaded once."""
    expect.set_options(timeout=_WAIT_SECONDS * 1000)
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, locale="en-US", timezone_id="UTC")
    context.set_default_timeout(_WAIT_SECONDS * 1000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, demo: RunningDemo) -> Iterator[Page]:
    """An empty page. Fails the test afterwards if it asked for anything that is not the UI's."""
    page, asked = context.new_page(), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    yield page
    page.close()
    assert not [url for url in asked if not url.startswith((address(demo), "data:", "blob:"))]


@pytest.fixture
def ui(page: Page, demo: RunningDemo, images: Path) -> Ui:
    return Ui(page, address(demo), images)


@pytest.fixture
def database_url(demo: RunningDemo) -> str:
    """Of the demo's PostgreSQL, as a shell reads it from the file that the demo writes."""
    said = subprocess.run(
        ["sh", "-c", '. .demo/env && printf %s "$DATABASE_URL"'],
        cwd=demo.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout


def address(demo: RunningDemo) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", demo.said)
    assert found is not None
    return found[0]

"""A demo with its UI in a browser, for one test module, in a clone with README's third stream."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from ingest_pipeline.demo.simulate import Plan, simulate
from ingest_pipeline_tests.docs_commands import clone_with_stream_of_readme
from ingest_pipeline_tests.integration.running_demo import RunningDemo
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.ui.pages import Ui

# Runs of price are short, so one ends soon. The run of temperature lasts until a test terminates it.
_SETTINGS = {"PRICE_RUN_MAX_SECONDS": "40", "TEMPERATURE_RUN_MAX_SECONDS": "3600", "REPORT_SECONDS": "3"}
_WAIT_SECONDS = 90


@pytest.fixture(scope="module")
def demo(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """Every table has rows, and temperature has refused records. SIGKILL ends the demo and all of its processes."""
    clone = clone_with_stream_of_readme(tmp_path_factory.mktemp("clone"))
    with RunningDemo(clone, "--rate", "60", PYTHONPATH=str(clone), **_SETTINGS) as running:
        running.wait_for("rows in every table", 300)
        kafka = {"bootstrap.servers": from_env_file(running, "KAFKA_BOOTSTRAP_SERVERS")}
        simulate(kafka, Plan(["temperature"], rate=0, records=2000, broken_every=100))
        yield running
        running.send(signal.SIGKILL)
        assert running.end() == -signal.SIGKILL
        wait_for("the end of the demo's processes", lambda: not running.left(), every=0.2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for pictures: the value of SCREENSHOTS, or a temporary folder."""
    named = os.environ.get("SCREENSHOTS")
    return Path(named) if named else tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """One browser context for all pages, so that the UI's scripts load once."""
    expect.set_options(timeout=_WAIT_SECONDS * 1000)
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, locale="en-US", timezone_id="UTC")
    context.set_default_timeout(_WAIT_SECONDS * 1000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, demo: RunningDemo) -> Iterator[Page]:
    """An empty page. The test fails afterwards if the page requested anything outside the UI."""
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
    return from_env_file(demo, "DATABASE_URL")


def from_env_file(demo: RunningDemo, name: str) -> str:
    """A variable that a shell reads from the file that the demo writes."""
    command = ["sh", "-c", f'. .demo/env && printf %s "${name}"']
    return subprocess.run(command, cwd=demo.folder, capture_output=True, text=True, check=True).stdout


def address(demo: RunningDemo) -> str:
    match = re.search(r"http://127\.0\.0\.1:\d+", demo.said)
    assert match is not None
    return match[0]

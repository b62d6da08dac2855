"""Dagster's pages, found by their visible text and never by CSS classes."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

_LOOK_SECONDS = 15.0
_PATIENCE_SECONDS = 240.0
_BLUE_PIXELS = """canvas => {
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let found = 0;
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] && data[i + 2] - data[i] > 60) found += 1;
    return found;
}"""


@dataclass(frozen=True)
class Ui:
    """One page of the browser, on one Dagster."""

    page: Page
    url: str
    images: Path

    def open(self, path: str) -> None:
        self.page.goto(self.url + path, wait_until="domcontentloaded")

    def open_until(self, path: str, content: Locator) -> None:
        """Reload the page until it shows the expected content."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            self.open(path)
            try:
                expect(content.first).to_be_visible(timeout=_LOOK_SECONDS * 1000)
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise

    def leave(self) -> str:
        """Leave the page, because an open page costs CPU all the time. Returns its path."""
        path = self.page.url.removeprefix(self.url)
        self.page.goto("about:blank")
        return path

    def row(self, name: str) -> Locator:
        """A table row, found by its first cell."""
        return self.page.get_by_role("row", name=re.compile(rf"^{re.escape(name)} "))

    def text(self, text: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_text(text, exact=isinstance(text, str))

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    def run_of(self, job: str) -> str:
        """Open the newest started run on the job's page. Returns the first characters of its id."""
        self.open_until(f"/locations/ingest_pipeline.definitions/jobs/{job}/runs", self.text("Started"))
        self.page.get_by_role("link", name="View", exact=True).first.click()
        self.page.wait_for_url("**/runs/*")
        return self.page.url.rpartition("/runs/")[2][:8]

    def picture(self, name: str, element: Locator | None = None) -> None:
        """Save a screenshot, scrolled to a place of the page if one is named."""
        if element is not None:
            element.evaluate("element => element.scrollIntoView({block: 'start'})")
        self.page.mouse.move(0, 0)  # no tooltip
        self.page.screenshot(path=self.images / f"{name}.png", animations="disabled")


def line_pixels(canvas: Locator) -> int:
    """The number of blue pixels, which belong to a plot's line. Axes and labels are grey."""
    return int(canvas.evaluate(_BLUE_PIXELS))

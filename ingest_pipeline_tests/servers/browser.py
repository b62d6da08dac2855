"""The browser of the tests: the system's Chromium, because playwright's own would have to be downloaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Error, sync_playwright

from ingest_pipeline.local.server import HOST

from .broker import ServerUnavailable

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A container has no GPU and often only root. The other options keep the browser from calling its vendor's servers.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser for the block. In it no host name resolves except this machine's address.

    Raises ServerUnavailable when there is none on PATH or it does not start.
    """
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        raise ServerUnavailable(f"no Chromium is here: none of {', '.join(_NAMES)} is on PATH")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS, timeout=120_000)
        except Error as error:
            raise ServerUnavailable(f"{path} does not start: {error.message.splitlines()[0]}") from None
        try:
            yield browser
        finally:
            browser.close()

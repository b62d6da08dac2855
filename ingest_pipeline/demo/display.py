"""A line that changes on a terminal, and a plain line every 5 s elsewhere."""

import time
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

_PLAIN_SECONDS = 5.0


class LiveLine:
    """Writes to standard output while entered."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._next_seconds = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, text: str) -> None:
        """Replace the text shown. Without a terminal print a line at most every 5 s."""
        if self._console.is_terminal:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif time.monotonic() >= self._next_seconds:
            self._next_seconds = time.monotonic() + _PLAIN_SECONDS
            self.say(text)

    def say(self, text: str) -> None:
        """Print a permanent line."""
        self._console.print(text)

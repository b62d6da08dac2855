"""One line that changes on a terminal, and a plain line now and then elsewhere."""

import shutil
import sys
import time

_PLAIN_SECONDS = 5.0


class LiveLine:
    """Writes to standard output."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._shown = False
        self._last = -_PLAIN_SECONDS

    def show(self, text: str) -> None:
        """Put the text in place of the one shown before; without a terminal, at most one line in 5 s."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write(f"\r{text[:width]}\x1b[K")
            self._shown = True
        elif time.monotonic() - self._last >= _PLAIN_SECONDS:
            self._last = time.monotonic()
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """A line that stays, under what was shown."""
        above = "\n" if self._shown else ""
        sys.stdout.write(f"{above}{text}\n")
        sys.stdout.flush()
        self._shown = False

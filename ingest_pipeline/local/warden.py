"""``python -m ingest_pipeline.local.warden``: ends what it guards when its standard input ends.

Standard input is a pipe whose other end only the guarded processes' owner holds: the system closes it whichever way
the owner goes. Lines on it: ``guard PID SIGNAL`` and ``release PID``.
"""

import signal
import sys

from .process_family import Family

_GRACE_SECONDS = 15.0


def main() -> None:
    """Follow the lines until they end; then end what was not released, the last one first."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guarded: dict[int, tuple[Family, signal.Signals]] = {}
    for line in sys.stdin:
        match line.split():
            case ["guard", pid, name]:
                guarded[int(pid)] = Family(int(pid)), signal.Signals[name]
            case ["release", pid]:
                guarded.pop(int(pid), None)
    for family, polite in reversed(guarded.values()):
        family.end(polite, _GRACE_SECONDS)


if __name__ == "__main__":
    main()

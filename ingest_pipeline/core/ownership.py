"""Takes ownership of partitions, also from a run that is about to end."""

from collections.abc import Callable, Collection, Mapping

from .ledger import HandoverRequest, Holder
from .ledger_ports import LedgerSession
from .ports import Clock

POLL_SECONDS = 0.05
_LOOK_FOR_FROZEN_SECONDS = 2.0
_JUDGED_SECONDS = 20.0
"""A frozen owner has been recognized after this time, however short the wait is."""
_REST_SECONDS = 1.0
"""An owner gives all its streams back at once. After the first stream, the others are awaited this long."""
_PROBES = 3
"""Streams that a poll asks for. A run with a hundred streams would otherwise keep PostgreSQL busy while it waits."""


def take_ownership(
    wanted: Mapping[LedgerSession, Collection[int]],
    clock: Clock,
    *,
    exact: bool,
    request: HandoverRequest | None = None,
    wait_seconds: float = 0.0,
    stop: Callable[[], str | None] = lambda: None,
) -> dict[LedgerSession, dict[int, Holder]]:
    """Own the partitions of several streams. Returns the owners of partitions that were not taken, by session.

    Args:
        exact: own all partitions of a stream or none. Otherwise own the free partitions.
        request: shown to the owners during the wait.
        wait_seconds: time to keep trying. A frozen COPY of an owner may extend the time.

    Raises:
        EnvironmentFault, StopStream.
    """
    if request is not None:
        for session, partitions in wanted.items():
            session.announce(request, partitions)
    others = _take(wanted, clock, exact=exact, wait_seconds=wait_seconds, stop=stop)
    if request is not None:
        for session in wanted:
            session.withdraw()
    return others


def _take(
    wanted: Mapping[LedgerSession, Collection[int]],
    clock: Clock,
    *,
    exact: bool,
    wait_seconds: float,
    stop: Callable[[], str | None],
) -> dict[LedgerSession, dict[int, Holder]]:
    began = look_at = clock.monotonic()
    deadline = began + wait_seconds
    others: dict[LedgerSession, dict[int, Holder]] = {}
    waiting = probes = list(wanted)
    turn = 0
    while True:
        others |= {session: session.own(wanted[session], exact=exact) for session in probes}
        taken = [session for session in probes if session.positions or not others[session]]
        waiting = [session for session in waiting if session not in taken]
        now = clock.monotonic()
        if taken:
            deadline = min(deadline, now + _REST_SECONDS)
        if waiting and now >= look_at:
            look_at = now + _LOOK_FOR_FROZEN_SECONDS
            if waiting[0].end_frozen_owners(wanted[waiting[0]]):
                deadline = max(deadline, min(look_at + POLL_SECONDS, began + _JUDGED_SECONDS))
        if not waiting or now >= deadline or stop() is not None:
            return {session: holders for session, holders in others.items() if holders}
        if taken:
            probes = waiting
            continue
        clock.sleep(POLL_SECONDS)
        turn += _PROBES
        probes = [waiting[(turn + number) % len(waiting)] for number in range(min(_PROBES, len(waiting)))]

"""Ownership of several streams, taken over from runs that end."""

from collections.abc import Callable

import pytest

from ingest_pipeline.core.ledger import HandoverRequest
from ingest_pipeline.core.ownership import take_ownership
from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.testing import (
    MemoryDatabase,
    MemoryLedger,
    MemoryLedgerSession,
    MemoryWritingConnection,
    SettableClock,
)
from ingest_pipeline_tests.samples import IDENTITY, READING

STREAMS = [Stream(f"site_{number:02}", READING.event, job="sites") for number in range(20)]


class Changing(SettableClock):
    """Calls a function when the time has come."""

    def __init__(self) -> None:
        super().__init__()
        self.actions: list[tuple[float, Callable[[], object]]] = []

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        while self.actions and self.monotonic() >= self.actions[0][0]:
            self.actions.pop(0)[1]()


class Sites:
    """Twenty begun streams with two partitions each, owned by run "old"."""

    def __init__(self) -> None:
        self.clock = Changing()
        self.database = MemoryDatabase(self.clock)
        for stream in STREAMS:
            MemoryLedger(self.database, stream).begin(IDENTITY, {0: NextOffset(0), 1: NextOffset(0)}, first=True)
        self.old = self.connect("old")
        self.own(self.old, STREAMS)
        self.new = self.connect("new")
        self.sessions = [MemoryLedgerSession(self.new, stream) for stream in STREAMS]

    def connect(self, run_id: str) -> MemoryWritingConnection:
        return MemoryWritingConnection(self.database, run_id)

    def own(self, connection: MemoryWritingConnection, streams: list[Stream]) -> None:
        for stream in streams:
            assert MemoryLedgerSession(connection, stream).own([0, 1], exact=True) == {}

    def take(self, wait_seconds: float, request: HandoverRequest | None = HandoverRequest.NOW) -> dict[str, set[str]]:
        """Stream → runs that kept partitions of it."""
        partitions = {session: [0, 1] for session in self.sessions}
        others = take_ownership(partitions, self.clock, exact=True, request=request, wait_seconds=wait_seconds)
        names = dict(zip(self.sessions, STREAMS, strict=True))
        return {
            names[session].name: {holder.run_id for holder in holders.values()} for session, holders in others.items()
        }


def test_all_streams_are_taken_as_soon_as_the_owner_has_ended() -> None:
    sites = Sites()
    sites.clock.actions = [(7.0, sites.old.close)]
    assert sites.take(30.0) == {}
    assert 7.0 <= sites.clock.monotonic() < 7.5
    assert all(session.positions.keys() == {0, 1} for session in sites.sessions)


def test_without_an_end_of_the_owner_nothing_is_taken() -> None:
    sites = Sites()
    assert sites.take(3.0) == {stream.name: {"old"} for stream in STREAMS}
    assert 3.0 <= sites.clock.monotonic() < 3.5
    assert sites.new.backend.owned == set()


def test_a_stream_of_a_third_run_delays_the_others_for_a_second() -> None:
    sites = Sites()
    hand = sites.connect("hand")

    def end() -> None:
        sites.old.close()
        sites.own(hand, STREAMS[:1])

    sites.clock.actions = [(7.0, end)]
    assert sites.take(60.0) == {"site_00": {"hand"}}
    assert sites.clock.monotonic() < 8.5
    assert sum(bool(session.positions) for session in sites.sessions) == 19


@pytest.mark.parametrize("request_", list(HandoverRequest))
def test_the_owner_sees_the_request_until_the_wait_ends(request_: HandoverRequest) -> None:
    sites = Sites()
    seen: list[set[HandoverRequest]] = []
    sites.clock.actions = [(1.0, lambda: seen.append(sites.database.requests("site_19", [0, 1])))]
    sites.take(2.0, request_)
    assert seen == [{request_}]
    assert sites.database.requests("site_19", [0, 1]) == set()

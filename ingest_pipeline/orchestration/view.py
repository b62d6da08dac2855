"""What a tick sees and what it decides. Values only."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .tags import Shard

AGE = "age"
"""The successor that waits for the owner's age; every other one makes the owner end at once."""
STARTING_SECONDS = 30.0
"""How long Dagster's default launcher may take to start a run before another run is launched."""
START_GRACE_SECONDS = 20.0
"""How long a started run may take to open its writing session. One that had a session and lost it is gone at once."""
LEAD_SECONDS = 12.0
"""How long before a run's age its successor is launched: a tick's interval and a run's start."""


@dataclass(frozen=True, slots=True)
class RunView:
    """A Dagster run as a tick sees it. Times are Unix seconds by the clock of Dagster's storage or of the run's host.

    Attributes:
        started_at: when its process started, or else when Dagster created the run.
        ended: the tag, "" while the run lasts.
        launch_seconds: from its creation to its start. None: it has not started.
        opening_seconds: from its start to its session with PostgreSQL. None: not known.
    """

    run_id: str
    status: str
    shard: Shard | None
    definition: str
    started_at: float
    ended_at: float | None = None
    ended: str = ""
    launch_seconds: float | None = None
    opening_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds.

    Attributes:
        starting: from Dagster's launch of a run to its start.
        opening: from its start to its session with PostgreSQL.
        lead: how long before the owner's age the successor is launched.
    """

    starting: float = STARTING_SECONDS
    opening: float = START_GRACE_SECONDS
    lead: float = LEAD_SECONDS


@dataclass(frozen=True, slots=True)
class Sight:
    """Since when, by the sensor's own clock, a run has the status that the sensor saw last."""

    status: str
    since: float


@dataclass(frozen=True, slots=True)
class View:
    """Everything a tick looked at. Its times are Unix seconds by the sensor's own clock, but for those of RunView.

    Attributes:
        lag: partition → records between its position and its end; the whole log where there is no position.
        unanswered: partitions whose leader did not answer. Nothing is known of them.
        begun: partitions that have a position.
        owners: partition → run id of its (not frozen) owner.
        present: runs with a writing session that is not frozen.
        named: runs that took over a position and were not followed yet: each of them has had a session.
        active: runs of this stream that Dagster shows as not ended.
        recent: the newest ended runs, newest first.
        progress_at: partition → when its position last moved; without those that never did.
        lost: Kafka does not hold a position's next offset, and a run is to go on without asking.
        acted_at: when an operator last mended something; failures before that do not count.
        ghosts_seen: run id → when a tick first saw it without a session, or created long ago and never started.
        runs_asked: whether Dagster was asked for `active` and `recent`; else both are empty, as they were before.
        sights: run id → what the last looks saw of it.
        looked_at: when Dagster was last asked for the runs before this look. None: not known.
        patience: how long starts are waited for. None: the shortest.
        failure: what the ledger says of the newest failure.
    """

    now: float
    parallelism: int
    definition: str
    lag: Mapping[int, int]
    begun: Collection[int]
    owners: Mapping[int, str]
    present: Collection[str]
    named: Collection[str]
    active: Collection[RunView]
    recent: Collection[RunView] = ()
    progress_at: Mapping[int, float] = field(default_factory=dict)
    paused: str | None = None
    lost: bool = False
    acted_at: float = 0.0
    run_max_seconds: float = math.inf
    ghosts_seen: Mapping[str, float] = field(default_factory=dict)
    runs_asked: bool = True
    sights: Mapping[str, Sight] = field(default_factory=dict)
    looked_at: float | None = None
    patience: Patience | None = None
    failure: str | None = None
    unanswered: Collection[int] = ()

    def since(self, run: RunView) -> float:
        """When the run came to its status, by the sensor's own clock; never in the future.

        The sensor's own sight counts before what other clocks say. A run that the look before did not show, or showed
        in another status, changed between the two looks. (Of ended runs, setbacks alone are remembered and asked for.)
        """
        seen = self.sights.get(run.run_id)
        if seen is not None and seen.status == run.status:
            return min(seen.since, self.now)
        said = run.started_at if run.ended_at is None else run.ended_at
        if self.looked_at is not None:
            said = max(said, self.looked_at)
        return min(said, self.now)

    def age(self, run: RunView) -> float:
        """For how many seconds the run has had its status."""
        return self.now - self.since(run)

    def began(self, run: RunView) -> float:
        """When an ended run began, by the sensor's own clock."""
        lasted = 0.0 if run.ended_at is None else max(0.0, run.ended_at - run.started_at)
        return self.since(run) - lasted


@dataclass(frozen=True, slots=True)
class Launch:
    """A run to launch. `successor`: why it is to take over from the owner, or None."""

    shard: Shard
    successor: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do.

    Attributes:
        said: a sentence for each shard that gets no run.
        failed_ghosts: runs to report failed.
        ghosts_seen, sights: what the next look has to know.
        fruitless: of a shard whose runs end one after the other without a failure and without progress. None: no such.
    """

    launches: list[Launch]
    said: list[str]
    failed_ghosts: list[str]
    ghosts_seen: dict[str, float]
    sights: dict[str, Sight] = field(default_factory=dict)
    fruitless: str | None = None

"""The input and the output of a sensor tick's decision. Values only."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from .tags import Shard

AGE = "age"
"""A successor with this reason waits for the owner's age. With any other reason the owner ends at once."""
STARTING_SECONDS = 30.0
"""How long Dagster's default launcher may take to start a run before another run is launched."""
START_GRACE_SECONDS = 20.0
"""How long a started run may take to open its writing session. A run that lost its session gets no grace."""
LEAD_SECONDS = 12.0
"""How long before a run's age its successor is launched: a tick's interval and a run's start."""


@dataclass(frozen=True, slots=True)
class RunView:
    """A Dagster run. Times are Unix seconds by the clock of Dagster's storage or of the run's host.

    Attributes:
        started_at: when the process started. Before the start: when Dagster created the run.
        ended: the end reason from the run's tag, "" while the run lasts.
        launch_seconds: from creation to start. None before the start.
        opening_seconds: from start to the session with PostgreSQL. None where unknown.
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
    failed_streams: Collection[str] = ()

    @property
    def unstarted(self) -> bool:
        """Whether a launcher or a queue still holds the run."""
        return self.status in ("QUEUED", "STARTING")

    @property
    def never_started(self) -> bool:
        """Whether the run was canceled before its process started."""
        return self.status == "CANCELED" and self.launch_seconds is None


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds.

    Attributes:
        starting: from Dagster's launch of a run to its start.
        opening: from a run's start to its session with PostgreSQL.
        lead: how long before the owner's age the successor is launched.
    """

    starting: float = STARTING_SECONDS
    opening: float = START_GRACE_SECONDS
    lead: float = LEAD_SECONDS


@dataclass(frozen=True, slots=True)
class StatusSince:
    """A run's status at the last tick, and since when the run has had it by the sensor's own clock."""

    status: str
    since: float


@dataclass(frozen=True, slots=True)
class StreamView:
    """A stream of the job, as read by a tick.

    Attributes:
        number: the stream's place among the streams of its job, ordered by name.
        lag: partition → records between its position and its end. Without a position: the records of the whole log.
        unanswered: partitions whose leader did not answer. Their state is unknown.
        begun: partitions with a position.
        owners: partition → run id of its owner, except frozen owners.
        progress_at: partition → when its position last moved. Partitions without any progress are absent.
        trouble: why no run can drain the stream, such as a missing topic.
        lost: Kafka does not hold a position's next offset, and the settings let a run go on.
        acted_at: when an operator last acted on the stream. Earlier failures do not count.
        failure: the newest failure in the ledger.
        stopped_at: when the stream failed, if only an operator can help.
    """

    name: str
    number: int = 0
    lag: Mapping[int, int] = field(default_factory=dict)
    unanswered: Collection[int] = ()
    begun: Collection[int] = ()
    owners: Mapping[int, str] = field(default_factory=dict)
    progress_at: Mapping[int, float] = field(default_factory=dict)
    paused: str | None = None
    trouble: str | None = None
    lost: bool = False
    acted_at: float = 0.0
    failure: str | None = None
    stopped_at: float = 0.0

    @property
    def held_up(self) -> str | None:
        """Why the sensor launches no run for the stream."""
        return self.trouble or (f"paused: {self.paused}" if self.paused is not None else None)

    @property
    def stopped(self) -> bool:
        """Whether the newest failure still holds and needs an operator."""
        return self.stopped_at > max([self.acted_at, *self.progress_at.values()])


@dataclass(frozen=True, slots=True)
class Share:
    """A shard's partitions of a stream."""

    stream: StreamView
    partitions: list[int]
    unanswered: list[int]

    @property
    def lag(self) -> int:
        return sum(self.stream.lag[partition] for partition in self.partitions)

    @property
    def owners(self) -> list[str]:
        owners, partitions = self.stream.owners, (*self.partitions, *self.unanswered)
        return list(dict.fromkeys(owners[partition] for partition in partitions if partition in owners))

    @property
    def unbegun(self) -> bool:
        return any(partition not in self.stream.begun for partition in self.partitions)

    @property
    def due(self) -> bool:
        """Whether a run has something to do."""
        return bool(self.partitions) and (self.lag > 0 or self.stream.lost or self.unbegun)

    @property
    def progress_at(self) -> float:
        """When a position last moved or an operator last acted."""
        progress = (self.stream.progress_at.get(partition, 0.0) for partition in self.partitions)
        return max([self.stream.acted_at, *progress])


@dataclass(frozen=True, slots=True)
class View:
    """Everything read by a tick. Times are Unix seconds by the sensor's own clock, except in RunView.

    Attributes:
        streams: the job's streams, ordered by name.
        connected: runs with a writing session, except frozen runs.
        recorded_owners: runs recorded as the current owner of a position. All of them have had a session.
        active: the job's runs without an end in Dagster.
        recent: the job's newest ended runs, newest first.
        elsewhere: the sensor runs of other jobs without an end in Dagster.
        ghosts_seen: run id → when a tick first judged the run to be a ghost.
        runs_read: whether the tick read runs from Dagster. Otherwise `active` and `recent` are empty.
        last_statuses: run id → its status at the last tick that read runs.
        runs_read_at: when an earlier tick last read runs from Dagster. None where unknown.
        patience: how long to wait for starts.
    """

    now: float
    parallelism: int
    definition: str
    streams: Sequence[StreamView]
    connected: Collection[str]
    recorded_owners: Collection[str]
    active: Collection[RunView]
    recent: Collection[RunView] = ()
    elsewhere: Collection[RunView] = ()
    run_max_seconds: float = math.inf
    ghosts_seen: Mapping[str, float] = field(default_factory=dict)
    runs_read: bool = True
    last_statuses: Mapping[str, StatusSince] = field(default_factory=dict)
    runs_read_at: float | None = None
    patience: Patience = Patience()

    def shares(self, shard: Shard) -> list[Share]:
        """The shard's shares. A stream without known partitions is in one of the shards."""
        shares = []
        for stream in self.streams:
            partitions = shard.partitions(stream.lag, stream.number)
            unanswered = shard.partitions(stream.unanswered, stream.number)
            if partitions or unanswered or (stream.trouble and shard.partitions([0], stream.number)):
                shares.append(Share(stream, partitions, unanswered))
        return shares

    def since(self, run: RunView) -> float:
        """When the run got its status, by the sensor's own clock. Never in the future.

        The sensor's memory of the status counts more than another clock. A run with a new status changed after the
        last tick that read runs. Of ended runs the sensor remembers setbacks only, and judges no other ended run.
        """
        last = self.last_statuses.get(run.run_id)
        if last is not None and last.status == run.status:
            return min(last.since, self.now)
        since = run.started_at if run.ended_at is None else run.ended_at
        if self.runs_read_at is not None:
            since = max(since, self.runs_read_at)
        return min(since, self.now)

    def age(self, run: RunView) -> float:
        """For how many seconds the run has had its status."""
        return self.now - self.since(run)

    def began(self, run: RunView) -> float:
        """When an ended run began, by the sensor's own clock."""
        lasted = 0.0 if run.ended_at is None else max(0.0, run.ended_at - run.started_at)
        return self.since(run) - lasted


@dataclass(frozen=True, slots=True)
class Launch:
    """A run to launch. `successor`: the reason to take over from the owner, or None."""

    shard: Shard
    successor: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A tick's decision.

    Attributes:
        skip_reasons: a sentence for every shard without a launch.
        failed_ghosts: runs to report failed.
        ghosts_seen, last_statuses: memory for the next tick.
        fruitless: the message about a shard with fruitless runs in a row, or None.
    """

    launches: list[Launch]
    skip_reasons: list[str]
    failed_ghosts: list[str]
    ghosts_seen: dict[str, float]
    last_statuses: dict[str, StatusSince] = field(default_factory=dict)
    fruitless: str | None = None

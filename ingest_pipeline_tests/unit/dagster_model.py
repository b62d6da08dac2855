"""Dagster, its runs and one stream of one shard as a tick sees them, in plain values. Time is what a test says."""

from dataclasses import dataclass, field

from ingest_pipeline.orchestration.patience import learned_patience, successor_seconds
from ingest_pipeline.orchestration.sensor.decide import decide, superseded
from ingest_pipeline.orchestration.tags import Shard
from ingest_pipeline.orchestration.view import AGE, Decision, RunView, StatusSince, StreamView, View

NEVER = float("inf")
HANDOVER_SECONDS = 15.0


@dataclass
class Run:
    """One run: when it was created, when its process starts, since when it owns, when it ended."""

    run_id: str
    created: float
    starts: float
    opens: float
    successor: str | None
    owns_since: float | None = None
    ended_at: float | None = None
    ended: str = ""
    status: str = "STARTING"


@dataclass
class DagsterModel:
    """Attributes:
    start: seconds from a run's creation to its process's start.
    opening: from there to its session.
    starting: RUN_START_SECONDS, or what suits the launcher.
    hosts_ahead: how far the clock of Dagster's storage and of the runs' hosts is ahead of the sensor's.
    sensor_ahead: how far the sensor's clock is ahead of the true time.
    outcome: None: a run drains. Else a run ends at once, with this status and this tag, and moves nothing.
    """

    start: float = 2.0
    opening: float = 1.0
    starting: float = 300.0
    run_max: float = 600.0
    hosts_ahead: float = 0.0
    sensor_ahead: float = 0.0
    outcome: tuple[str, str] | None = None
    now: float = 1_000_000.0
    runs: list[Run] = field(default_factory=list)
    launched_at: list[float] = field(default_factory=list)
    skip_reasons: list[str] = field(default_factory=list)
    owned_seconds: float = 0.0
    most_active: int = 0
    most_starting: int = 0
    failed: list[str] = field(default_factory=list)
    _ghosts: dict[str, float] = field(default_factory=dict)
    _last_statuses: dict[str, StatusSince] = field(default_factory=dict)
    _runs_read_at: float | None = None

    def go(self, seconds: float, tick_every: float = 5.0) -> None:
        """Time passes, a second at a time. A tick looks every so many seconds."""
        end = self.now + seconds
        while self.now < end:
            self.tick()
            for _ in range(round(tick_every)):
                self.now += 1.0
                self._move()

    @property
    def owner(self) -> Run | None:
        return next((run for run in self.runs if run.owns_since is not None and run.ended_at is None), None)

    def tick(self) -> Decision:
        """One decision. What it launches and reports failed is done."""
        now = self.now + self.sensor_ahead
        active = [self._view(run) for run in reversed(self.runs) if run.ended_at is None]
        recent = [self._view(run) for run in reversed(self.runs) if run.ended_at is not None][:12]
        owner = self.owner
        view = View(
            now=now,
            parallelism=1,
            definition="one",
            streams=[
                StreamView(
                    "price",
                    lag={0: 5},
                    begun={0},
                    owners={0: owner.run_id} if owner else {},
                    progress_at={0: now - 1} if owner else {},
                )
            ],
            connected={run.run_id for run in self.runs if run.status == "STARTED" and self.now >= run.opens},
            recorded_owners={owner.run_id} if owner else (),
            active=active,
            recent=recent,
            run_max_seconds=self.run_max,
            ghosts_seen=self._ghosts,
            last_statuses=self._last_statuses,
            runs_read_at=self._runs_read_at,
            patience=learned_patience([*active, *recent], self.starting, self.run_max),
        )
        decision = decide(view)
        self.skip_reasons += decision.skip_reasons
        self._ghosts, self._last_statuses, self._runs_read_at = decision.ghosts_seen, decision.last_statuses, now
        for run in self.runs:
            if run.run_id in decision.failed_ghosts:
                self.failed.append(run.run_id)
                run.status, run.ended_at = "FAILURE", self.now
        canceled = superseded(view, decision.launches)
        for run in self.runs:
            if run.run_id in canceled:
                assert run.status == "STARTING"
                run.status, run.ended_at = "CANCELED", self.now
        for launch in decision.launches:
            starts = self.now + self.start
            run_id = f"{len(self.runs):08}"
            self.runs.append(
                Run(run_id, self.now, starts=starts, opens=starts + self.opening, successor=launch.successor)
            )
            self.launched_at.append(self.now)
        self.most_active = max(self.most_active, sum(run.ended_at is None for run in self.runs))
        self.most_starting = max(self.most_starting, sum(run.status == "STARTING" for run in self.runs))
        return decision

    def _move(self) -> None:
        owner = self.owner
        if owner is not None:
            self.owned_seconds += 1.0
            waiting = any(run.status == "STARTED" and run is not owner and self._open(run) for run in self.runs)
            assert owner.owns_since is not None
            age = self.now - owner.owns_since
            if age >= self.run_max + (0.0 if waiting else HANDOVER_SECONDS):
                self._end(owner, "SUCCESS", AGE)
        for run in self.runs:
            if run.ended_at is None and run.status == "STARTING" and self.now >= run.starts:
                run.status = "STARTED"
            if run.owns_since is None and self._open(run):
                if self.outcome is not None:
                    self._end(run, *self.outcome)
                elif self.owner is None:
                    run.owns_since = self.now
                elif self.now - run.opens >= (successor_seconds(self.run_max) if run.successor else 1.0):
                    self._end(run, "SUCCESS", "surplus")

    def _open(self, run: Run) -> bool:
        return run.ended_at is None and run.status == "STARTED" and self.now >= run.opens

    def _end(self, run: Run, status: str, ended: str) -> None:
        run.status, run.ended, run.ended_at = status, ended, self.now

    def _view(self, run: Run) -> RunView:
        started = run.status not in ("STARTING", "CANCELED") and run.starts <= self.now
        seconds = (run.starts if started else run.created) + self.hosts_ahead
        return RunView(
            run_id=run.run_id,
            status=run.status,
            shard=Shard(0, 1),
            definition="one",
            started_at=seconds,
            ended_at=None if run.ended_at is None else run.ended_at + self.hosts_ahead,
            ended=run.ended,
            launch_seconds=run.starts - run.created if started else None,
            opening_seconds=self.opening if run.ended else None,
        )

"""The demo: broker, PostgreSQL, simulated devices and Dagster on this machine, and numbers until somebody stops it."""

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import IngestError
from ..core.stream import Stream
from ..local.child_process import StopSignals
from ..settings import streams_import_path
from ..settings.streams import load_streams
from .dagster_api import DagsterAway, LocationWatch
from .dagster_dev import DagsterDev, choose_port, environment, write_home
from .devices import SHAPES
from .display import LiveLine
from .figures import Figures, FiguresUnavailable, StreamFigures
from .inventor import why_not
from .kill import Killer, kill_line, prove, wait_until_drained
from .report import arrived, rows_line, welcome
from .servers import PARTITIONS, Servers
from .simulate import Plan
from .simulator import Simulator

FOLDER = Path(".demo")
_LOOK_SECONDS = 1.0
_TIMES_THE_COST, _LONGEST_PAUSE_SECONDS = 20, 5.0


@dataclass(frozen=True)
class DemoOptions:
    """What `ingest demo` was asked for.

    Attributes:
        port: of Dagster's UI; the next free one when it is taken, any free one for 0.
        rate: events a second over all topics.
        seconds: end this long after the UI answered; None: when a signal comes.
        headless: end with a verdict: did rows arrive in every table through runs that sensors launched?
        kill_every: SIGKILL a draining run every so many seconds, and end with a proof; None: never.
    """

    port: int = 3000
    rate: float = 200.0
    seconds: float | None = None
    headless: bool = False
    kill_every: float | None = None


def run_demo(options: DemoOptions) -> int:
    """Run the demo in `.demo` of the current directory until its time is over or SIGINT, SIGTERM or SIGHUP comes.

    On return nothing it started runs: Dagster and its runs end first, then the broker, then PostgreSQL.
    Returns the exit code: 1 when a verdict or a proof was asked for and fails. Must be called on the main thread.

    Raises:
        LocalServerError: something could not be started, or ended by itself.
    """
    with StopSignals() as stop, ExitStack() as stack:
        return Demo(options, stop, stack).run()


class Demo:
    """One demo; what it starts is ended by the stack."""

    def __init__(self, options: DemoOptions, stop: StopSignals, stack: ExitStack) -> None:
        self._options, self._stop, self._stack = options, stop, stack
        self._started = time.monotonic()
        self._live = LiveLine()
        self._streams = load_streams()
        self._refusals = {stream.name: why_not(stream) for stream in self._streams if stream.topic not in SHAPES}
        self._simulated: list[Stream] = [stream for stream in self._streams if self._refusals.get(stream.name) is None]
        self._have_rows = False
        self._reloads = 0

    def run(self) -> int:
        """Start everything, show numbers, end with the exit code."""
        options = self._options
        port = choose_port(options.port)
        if options.port not in (0, port):
            self._live.say(f"port {options.port} is taken: Dagster's UI is on {port}")
        for name, why in self._refusals.items():
            how = "are made up from its Struct" if why is None else f"cannot be made up, so send some: {why}"
            self._live.say(f"events of {name} {how}")
        self._live.say("starting PostgreSQL, the broker and Dagster …")
        folder = Path.cwd() / FOLDER
        self._servers = self._stack.enter_context(Servers(folder, [stream.topic for stream in self._streams]))
        self._kafka = {"bootstrap.servers": self._servers.broker.bootstrap_servers}
        if self._stop.wait(0):
            return self._stopped_early()
        self._start_simulator()
        figures = Figures(self._servers.postgres.url, self._kafka, self._streams)
        self._figures = self._stack.enter_context(figures)
        self._dagster = self._start_dagster(folder, port)
        self._dagster.wait_until_ready(self._stop.wait)
        if self._stop.wait(0):
            return self._stopped_early()
        self._watch = self._stack.enter_context(LocationWatch(self._dagster.api))
        self._live.say(welcome(self._dagster.api.url, FOLDER, self._simulated, time.monotonic() - self._started))
        killer = Killer(self._dagster, self._simulated, options.kill_every) if options.kill_every else None
        self._until_stopped(killer)
        return self._end(killer)

    def _start_simulator(self) -> None:
        topics = tuple(stream.topic for stream in self._simulated)
        self._simulator = Simulator(self._kafka, Plan(topics, self._options.rate))
        self._stack.callback(self._simulator.stop)
        self._simulator.start()

    def _start_dagster(self, folder: Path, port: int) -> DagsterDev:
        home = folder / "dagster_home"
        write_home(home)
        env = environment(os.environ, self._kafka["bootstrap.servers"], self._servers.postgres.url, home)
        env["INGEST_STREAMS"] = streams_import_path()
        beside = [env.get("PYTHONPATH"), os.getcwd()]  # Dagster runs in its own folder, and their module may lie here
        env["PYTHONPATH"] = os.pathsep.join(filter(None, beside))
        names = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "DAGSTER_HOME", "INGEST_STREAMS")
        self._servers.write_env({name: env[name] for name in names})
        dagster = DagsterDev(folder, port, env, [self._servers.lock])
        self._stack.callback(dagster.stop)
        return dagster

    def _until_stopped(self, killer: Killer | None) -> None:
        """Show the live line until the time is over or a signal comes. Raises LocalServerError when a part ends."""
        over = None if self._options.seconds is None else time.monotonic() + self._options.seconds
        while not self._stop.count and (over is None or time.monotonic() < over):
            self._servers.check()
            self._dagster.check()
            self._simulator.check()
            looked = time.monotonic()
            try:
                self._show(killer)
            except (IngestError, FiguresUnavailable, DagsterAway) as error:
                self._live.show(str(error))
            pause = min(max(_LOOK_SECONDS, _TIMES_THE_COST * (time.monotonic() - looked)), _LONGEST_PAUSE_SECONDS)
            self._stop.wait(pause if over is None else max(0.0, min(pause, over - time.monotonic())))

    def _show(self, killer: Killer | None) -> None:
        found = self._figures.look(count_events=killer is not None)
        self._say_news(found)
        if killer is not None:
            self._live.show(kill_line(killer.killed, self._simulator.tally, found))
            killer.kill_when_due(found)
        else:
            self._live.show(rows_line(found, self._figures.lag(found, PARTITIONS)))

    def _say_news(self, found: dict[str, StreamFigures]) -> None:
        if not self._have_rows and all(found[stream.name].rows for stream in self._simulated):
            self._have_rows = True
            self._live.say(f"rows in every table {time.monotonic() - self._started:.1f} s after the start")
        if self._reloads != self._watch.reloads:
            self._reloads = self._watch.reloads
            self._live.say("Dagster's code location had died and was reloaded")

    def _end(self, killer: Killer | None) -> int:
        good = True
        if self._options.headless:
            said, good = arrived(self._figures.look(), self._dagster.api, self._simulated)
            self._live.say(said)
        if killer is not None:
            tally = self._simulator.stop()
            self._live.say("The devices are silent now; waiting until everything is drained.")
            drained = wait_until_drained(self._figures, killer.killed, tally, self._live, self._stop)
            if not drained:
                self._live.say("Not everything was drained, so the numbers cannot agree.")
            good = prove(self._figures, self._simulated, tally, self._live) and drained and good
        if not self._options.headless:
            self._live.say("Stopping Dagster, broker and PostgreSQL.")
        return 0 if good else 1

    def _stopped_early(self) -> int:
        self._live.say("stopped before everything had started")
        return 1 if self._options.headless or self._options.kill_every else 0

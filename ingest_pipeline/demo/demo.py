"""The demo: broker, PostgreSQL, simulated devices and Dagster on this machine, and numbers until a signal ends it."""

import os
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import IngestError
from ..core.stream import Stream
from ..local.child_process import StopSignals
from ..local.server import LocalServerError
from ..operations.clients import Clients
from ..operations.judgement import StreamStatus
from ..operations.status import statuses
from ..operations.stream_context import StreamContext
from ..settings import settings_of, streams_import_path
from ..settings.streams import load_streams
from .dagster_dev import DagsterDev, choose_port, environment, write_home
from .devices import SHAPES
from .inventor import why_not
from .kill import Killer, prove, wait_until_drained
from .proof import count
from .report import LiveLine, arrived, rows, rows_line, welcome
from .servers import Servers, Simulator
from .simulate import Plan

FOLDER = Path(".demo")
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 5.0
_PAUSE_FACTOR = 20
"""A look at the numbers may use a twentieth of the time."""


@dataclass(frozen=True)
class DemoOptions:
    """The options of `ingest demo`.

    Attributes:
        port: of Dagster's UI. The next free port when taken, any free port for 0.
        seconds: duration, from the UI's first answer. None: until a signal comes.
        headless: end with a verdict: did rows arrive in every table through sensor-launched runs?
        kill_every: seconds between two SIGKILLs for a draining run. The demo then ends with a proof. None: never.
    """

    port: int = 3000
    rate: float = 200.0
    seconds: float | None = None
    headless: bool = False
    kill_every: float | None = None


def run_demo(options: DemoOptions) -> int:
    """Run the demo in `.demo` of the current directory until its time is over or SIGINT, SIGTERM or SIGHUP comes.

    Before the return Dagster and its runs end first, then the broker, then PostgreSQL.
    Returns the exit code: 1 when a verdict or a proof was asked for and fails. Must be called on the main thread.

    Raises:
        LocalServerError: a server did not start, or ended by itself.
    """
    with StopSignals() as stop, LiveLine() as live, ExitStack() as stack:
        return Demo(options, stop, live, stack).run()


class Demo:
    """The demo's parts. The stack ends all of them."""

    def __init__(self, options: DemoOptions, stop: StopSignals, live: LiveLine, stack: ExitStack) -> None:
        self._options, self._stop, self._live, self._stack = options, stop, live, stack
        self._started = time.monotonic()
        self._streams = load_streams()
        self._refusals = {stream.name: why_not(stream) for stream in self._streams if stream.topic not in SHAPES}
        self._simulated: list[Stream] = [stream for stream in self._streams if self._refusals.get(stream.name) is None]
        self._killer: Killer | None = None
        self._have_rows = False

    def run(self) -> int:
        options = self._options
        port = choose_port(options.port)
        if options.port not in (0, port):
            self._live.say(f"port {options.port} is taken: Dagster's UI is on {port}")
        for name, reason in self._refusals.items():
            how = "are made up from its Struct" if reason is None else f"cannot be made up, so send some: {reason}"
            self._live.say(f"events of {name} {how}")
        self._live.say("starting PostgreSQL, the broker and Dagster …")
        folder = Path.cwd() / FOLDER
        self._servers = self._stack.enter_context(Servers(folder, [stream.topic for stream in self._streams]))
        if not self._stop.wait(0):
            self._start(folder, port)
        if self._stop.wait(0):
            self._live.say("stopped before everything had started")
            return 1 if options.headless or options.kill_every else 0
        seconds = time.monotonic() - self._started
        self._live.say(welcome(self._dagster.url, FOLDER, self._simulated, seconds))
        if options.kill_every:
            self._killer = Killer(self._dagster, options.kill_every)
        self._until_stopped()
        return 0 if self._is_good() else 1

    def _start(self, folder: Path, port: int) -> None:
        """Start the simulator and Dagster. On return the UI answers, or a signal has come."""
        kafka, home = self._servers.broker.bootstrap_servers, folder / "dagster_home"
        env = environment(os.environ, kafka, self._servers.postgres.url, home)
        env["INGEST_STREAMS"] = streams_import_path()
        # Dagster runs in its own folder, but the module of the streams may lie in the current one.
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), os.getcwd()]))
        names = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "DAGSTER_HOME", "INGEST_STREAMS")
        self._servers.write_env({name: env[name] for name in names})
        settings = settings_of(self._streams, env)
        self._clients = self._stack.enter_context(closing(Clients(settings)))
        topics = tuple(stream.topic for stream in self._simulated)
        self._simulator = Simulator({"bootstrap.servers": kafka}, Plan(topics, self._options.rate))
        self._stack.callback(self._simulator.stop)
        write_home(home)
        self._dagster = DagsterDev(folder, port, env, [self._servers.lock])
        self._stack.callback(self._dagster.stop)
        self._dagster.wait_until_ready(self._stop.wait)

    def _until_stopped(self) -> None:
        """Show the live line until the time is over or a signal comes. Raises LocalServerError when a part ends."""
        end = None if self._options.seconds is None else time.monotonic() + self._options.seconds
        while not self._stop.count and (end is None or time.monotonic() < end):
            self._servers.check()
            self._dagster.check()
            self._simulator.check()
            began = time.monotonic()
            try:
                self._show(self._statuses())
            except (IngestError, LocalServerError) as error:
                self._live.show(str(error))
            pause = min(max(_PAUSE_SECONDS, _PAUSE_FACTOR * (time.monotonic() - began)), _LONGEST_PAUSE_SECONDS)
            self._stop.wait(pause if end is None else max(0.0, min(pause, end - time.monotonic())))

    def _show(self, streams: list[StreamStatus]) -> None:
        simulated = {stream.name for stream in self._simulated}
        if not self._have_rows and all(rows(status) for status in streams if status.stream in simulated):
            self._have_rows = True
            self._live.say(f"rows in every table {time.monotonic() - self._started:.1f} s after the start")
        if self._killer is None:
            self._live.show(rows_line(streams))
        else:
            counts = [count(self._servers.postgres.url, stream) for stream in self._streams]
            self._live.show(self._killer.line(self._simulator.tally, counts))
            self._killer.kill_when_due(streams)
        if self._dagster.revive_code_server():
            self._live.say("Dagster's code location had died and was reloaded")

    def _is_good(self) -> bool:
        """Print verdict and proof, as the options require. True when both are good."""
        is_good = True
        if self._options.headless:
            verdict, is_good = arrived(self._statuses(), self._clients, self._dagster, self._simulated)
            self._live.say(verdict)
        if self._killer is not None:
            tally = self._simulator.stop()
            self._live.say("The devices are silent now. Waiting until everything is drained.")
            is_drained = wait_until_drained(self._contexts(), self._live, self._stop)
            if not is_drained:
                self._live.say("Not everything was drained, so the numbers cannot agree.")
            is_good = prove(self._servers.postgres.url, self._simulated, tally, self._live) and is_drained and is_good
        if not self._options.headless:
            self._live.say("Stopping Dagster, broker and PostgreSQL.")
        return is_good

    def _statuses(self) -> list[StreamStatus]:
        return statuses(self._contexts())

    def _contexts(self) -> list[StreamContext]:
        return [StreamContext(stream, self._clients) for stream in self._streams]

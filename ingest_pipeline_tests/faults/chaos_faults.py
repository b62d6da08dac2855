"""The faults of a chaos run that hit Dagster and its runs. chaos_servers.py has the faults of the servers."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import dagster as dg

from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.faults.chaos_world import World
from ingest_pipeline_tests.faults.signals import freeze, send
from ingest_pipeline_tests.faults.supervised import pid_of
from ingest_pipeline_tests.orchestration.bench import wait_for


@dataclass(frozen=True)
class Struck:
    """What a fault hit, in words, and how to end the fault after the fresh records have arrived.

    Attributes:
        stream: the only stream whose records do not arrive before the end of the fault.
    """

    target: str
    _: KW_ONLY
    stream: str = ""
    heal: Callable[[], object] = lambda: None


Strike = Callable[[World, random.Random], Struck]


def a_run(world: World, draw: random.Random) -> dg.DagsterRun:
    """Any draining run."""
    return draw.choice(wait_for("a live run", world.dagster.live_runs))


def named(run: dg.DagsterRun) -> str:
    return f"{tags.drained_job(run.tags)} {run.tags[tags.SHARD]} run {run.run_id[:8]}"


def kill_run(world: World, draw: random.Random) -> Struck:
    run = a_run(world, draw)
    send(pid_of(run), signal.SIGKILL)
    return Struck(named(run))


def kill_all_runs(world: World, draw: random.Random) -> Struck:
    runs = wait_for("a live run", world.dagster.live_runs)
    for run in runs:
        send(pid_of(run), signal.SIGKILL)
    return Struck(f"{len(runs)} runs")


def freeze_run_briefly(world: World, draw: random.Random) -> Struck:
    run = a_run(world, draw)
    freeze(pid_of(run), world.dagster.home)
    time.sleep(draw.uniform(0.5, 8))
    send(pid_of(run), signal.SIGCONT)
    return Struck(named(run))


def freeze_run_for_long(world: World, draw: random.Random) -> Struck:
    """Freeze a run, and thaw it after another run has replaced it."""
    run = a_run(world, draw)
    freeze(pid_of(run), world.dagster.home)
    return Struck(named(run), heal=lambda: send(pid_of(run), signal.SIGCONT))


def terminate_run(world: World, draw: random.Random) -> Struck:
    """End a run through Dagster. A run that is older than the code server can only be marked as ended, and lives on."""
    run = a_run(world, draw)
    if world.dagster.terminate(run.run_id):
        return Struck(named(run))
    world.dagster.instance.report_run_canceled(run)
    return Struck(f"{named(run)}, marked only")


def disown_run(world: World, draw: random.Random) -> Struck:
    run = a_run(world, draw)
    world.dagster.instance.report_run_failed(run, "marked failed by the test, while it lives on")
    # Dagster would leave it alone until its age. With only such runs, later faults would have none to strike.
    return Struck(named(run), heal=lambda: send(pid_of(run), signal.SIGKILL))


def kill_code_server(world: World, draw: random.Random) -> Struck:
    runs = world.dagster.live_runs()
    world.dagster.code_server.kill()
    return Struck(f"beside {len(runs)} runs")


def kill_code_server_and_runs(world: World, draw: random.Random) -> Struck:
    """Kill a run and the processes around it, as the end of a container would."""
    runs = world.dagster.live_runs()
    for run in runs:
        send(pid_of(run), signal.SIGSTOP)  # so that no server is left to see one of them end
    world.dagster.code_server.kill()
    for run in runs:
        send(pid_of(run), signal.SIGKILL)
    return Struck(f"with {len(runs)} runs")


def kill_daemon(world: World, draw: random.Random) -> Struck:
    world.dagster.daemon.kill()
    return Struck("beside everything else")


def cut_off_run(world: World, draw: random.Random) -> Struck:
    """Block the network of one run until other runs have done its work. All other connections pass."""
    run = a_run(world, draw)
    statement = "select client_port from pg_stat_activity where application_name = %s"
    ports = {port for (port,) in world.sql(statement, f"ingest {run.run_id}")}
    world.proxy.black_hole(ports)
    return Struck(named(run), heal=world.usual_network)


RUN_FAULTS: dict[str, tuple[int, Strike]] = {
    "kill a run": (4, kill_run),
    "kill every run": (1, kill_all_runs),
    "freeze a run for a moment": (2, freeze_run_briefly),
    "freeze a run until it is superseded": (1, freeze_run_for_long),
    "terminate a run": (2, terminate_run),
    "report a living run as failed": (1, disown_run),
    "kill the code server": (2, kill_code_server),
    "kill the code server and its runs": (1, kill_code_server_and_runs),
    "kill the daemon": (2, kill_daemon),
    "cut off a run": (1, cut_off_run),
}
"""Kind → number of cards in a full deck, and the function that strikes."""

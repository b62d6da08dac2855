"""The faults of PostgreSQL and of the network between PostgreSQL and its clients."""

import os
import random
import signal
import time
from collections.abc import Mapping
from contextlib import suppress

import psycopg

from ingest_pipeline_tests.faults import feed
from ingest_pipeline_tests.faults.chaos_faults import RUN_FAULTS, Strike, Struck, a_run, named
from ingest_pipeline_tests.faults.chaos_world import World

STATES = ("53100", "40001", "40P01", "57014", "55P03", "53200", "53300", "58030", "25006")
"""SQLSTATEs of the environment: disk full, serialization failure, deadlock, query canceled, lock not available, out of
memory, too many connections, I/O error, read-only server.
"""
_BACKEND = "select pid from pg_stat_activity where application_name = %s"
_MAKE_FUNCTION = """create or replace function refuse() returns trigger language plpgsql as
    $$ begin raise exception 'refused by the test' using errcode = tg_argv[0]; end $$"""


def crash_postgres(world: World, draw: random.Random) -> Struck:
    world.postgres.crash()
    away = draw.uniform(0, 3)
    time.sleep(away)
    world.postgres.start()
    return Struck(f"away for {away:.1f} s")


def end_backend(world: World, draw: random.Random) -> Struck:
    run = a_run(world, draw)
    world.sql(f"select pg_terminate_backend(pid) from ({_BACKEND}) as of_run", f"ingest {run.run_id}")
    return Struck(named(run))


def kill_backend(world: World, draw: random.Random) -> Struck:
    """Kill a backend. PostgreSQL then ends all sessions and recovers."""
    run = a_run(world, draw)
    for (pid,) in world.sql(_BACKEND, f"ingest {run.run_id}"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return Struck(named(run))


def kill_broker(world: World, draw: random.Random) -> Struck:
    world.kafka.kill()
    away = draw.uniform(0, 2)
    time.sleep(away)
    world.kafka.start()
    return Struck(f"away for {away:.1f} s and its start")


def black_hole(world: World, draw: random.Random) -> Struck:
    seconds = draw.uniform(1, 10)
    world.proxy.black_hole()
    time.sleep(seconds)
    world.usual_network()
    return Struck(f"for {seconds:.1f} s")


def latency(world: World, draw: random.Random) -> Struck:
    seconds = draw.choice([0.03, 0.1, 0.3])
    world.proxy.latency(seconds)
    time.sleep(draw.uniform(1, 6))
    world.usual_network()
    return Struck(f"{seconds:g} s each way")


def reset(world: World, draw: random.Random) -> Struck:
    count = len(world.proxy.links())
    world.proxy.reset()
    return Struck(f"{count} connections")


def refuse(world: World, draw: random.Random) -> Struck:
    """Let every write to one table fail for a while with an error of the environment."""
    stream, state = draw.choice(list(feed.SHAPES)), draw.choice(STATES)
    alter(world, _MAKE_FUNCTION)
    alter(
        world, f"create trigger refuse before insert on {stream} for each statement execute function refuse('{state}')"
    )
    time.sleep(draw.uniform(0.5, 6))
    alter(world, f"drop trigger refuse on {stream}")
    return Struck(f"{state} on {stream}")


def lock_table(world: World, draw: random.Random) -> Struck:
    stream, seconds = draw.choice(list(feed.SHAPES)), draw.uniform(0.5, 8)
    with psycopg.connect(world.url, application_name="chaos") as connection:
        connection.execute(f"lock table {stream} in access exclusive mode")
        time.sleep(seconds)
        connection.rollback()
    return Struck(f"{stream} for {seconds:.1f} s")


def alter(world: World, statement: str) -> None:
    """Lock a table without making writers queue behind the lock request."""
    while True:
        try:
            world.sql(f"set lock_timeout = '200ms'; {statement}; reset lock_timeout")
            return
        except psycopg.errors.LockNotAvailable:
            time.sleep(0.05)


SERVER_FAULTS: dict[str, tuple[int, Strike]] = {
    "crash and restart PostgreSQL": (2, crash_postgres),
    "end a run's session": (2, end_backend),
    "kill the process of a run's session": (1, kill_backend),
    "kill and restart the broker": (2, kill_broker),
    "black hole before PostgreSQL": (2, black_hole),
    "latency before PostgreSQL": (1, latency),
    "reset every connection to PostgreSQL": (2, reset),
    "an SQLSTATE of the environment": (3, refuse),
    "a lock on an event table": (1, lock_table),
}
FAULTS = RUN_FAULTS | SERVER_FAULTS
"""Faults of the world with one broker."""


def deck(seed: int, count: int, faults: Mapping[str, tuple[int, Strike]] = FAULTS) -> list[str]:
    """Endless sequence of fault kinds for this seed: full decks with all kinds by their shares, each shuffled."""
    draw = random.Random(f"{seed}/deck")
    dealt: list[str] = []
    while len(dealt) < count:
        lot = [kind for kind, (share, _) in faults.items() for _ in range(share)]
        draw.shuffle(lot)
        dealt += lot
    return dealt[:count]

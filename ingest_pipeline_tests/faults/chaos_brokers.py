"""The faults of a chaos run with three brokers, replication factor 3 and min.insync.replicas 2."""

import random
import time

from ingest_pipeline_tests.faults import feed
from ingest_pipeline_tests.faults.chaos_faults import RUN_FAULTS, Strike, Struck
from ingest_pipeline_tests.faults.chaos_servers import SERVER_FAULTS
from ingest_pipeline_tests.faults.chaos_world import World


def a_broker(world: World, draw: random.Random) -> int:
    return draw.choice(list(world.cluster.brokers))


def leads(world: World, broker: int) -> str:
    """The broker's name and the number of partitions that it leads."""
    led = sum(list(world.cluster.leaders(stream).values()).count(broker) for stream in feed.SHAPES)
    return f"broker {broker}, leader of {led} partitions"


def kill_until_rows(world: World, draw: random.Random) -> Struck:
    """Kill a broker. Rows must arrive while the broker is dead."""
    broker = a_broker(world, draw)
    target = leads(world, broker)
    world.cluster.brokers[broker].kill()
    return Struck(target, heal=lambda: world.cluster.restart(broker))


def kill_and_restart(world: World, draw: random.Random) -> Struck:
    """Kill and restart a broker at once, often before the controller has moved its partitions."""
    broker = a_broker(world, draw)
    target, away = leads(world, broker), draw.uniform(0, 4)
    world.cluster.brokers[broker].kill()
    time.sleep(away)
    world.cluster.restart(broker)
    return Struck(f"{target}, away for {away:.1f} s and its start")


def freeze_until_rows(world: World, draw: random.Random) -> Struck:
    """Freeze a broker. Rows must arrive meanwhile. After the thaw the broker still believes that it leads its
    partitions."""
    broker = a_broker(world, draw)
    target = leads(world, broker)
    world.cluster.brokers[broker].freeze()

    def thaw() -> None:
        world.cluster.brokers[broker].thaw()
        world.cluster.wait_in_sync()

    return Struck(target, heal=thaw)


def freeze_briefly(world: World, draw: random.Random) -> Struck:
    broker = a_broker(world, draw)
    target, seconds = leads(world, broker), draw.uniform(0.5, 8)
    world.cluster.brokers[broker].freeze()
    time.sleep(seconds)
    world.cluster.brokers[broker].thaw()
    world.cluster.wait_in_sync()
    return Struck(f"{target}, for {seconds:.1f} s")


def rolling_restart(world: World, draw: random.Random) -> Struck:
    """Restart the brokers one after another, as an upgrade does."""
    order = draw.sample(list(world.cluster.brokers), len(world.cluster.brokers))
    for broker in order:
        world.cluster.brokers[broker].stop()
        world.cluster.restart(broker)
    return Struck(f"brokers {order}")


def elect_leaders(world: World, draw: random.Random) -> Struck:
    """Move a broker's partitions to the others by a stop, and back by an election."""
    broker = a_broker(world, draw)
    target = leads(world, broker)
    world.cluster.brokers[broker].stop()
    world.cluster.restart(broker)
    for stream in feed.SHAPES:
        world.cluster.elect_preferred(stream)
    return Struck(f"{target}; after the election {leads(world, broker)}")


def cut_off_broker(world: World, draw: random.Random) -> Struck:
    """Cut a broker off from the product alone. The producers still reach the broker."""
    broker, seconds = a_broker(world, draw), draw.uniform(1, 20)
    target = leads(world, broker)
    world.broker_proxies[broker].black_hole()
    time.sleep(seconds)
    world.broker_proxies[broker].let_pass()
    return Struck(f"{target}, for {seconds:.1f} s")


def reset_broker(world: World, draw: random.Random) -> Struck:
    broker = a_broker(world, draw)
    count = len(world.broker_proxies[broker].links())
    world.broker_proxies[broker].reset()
    return Struck(f"{count} connections to {leads(world, broker)}")


BROKER_FAULTS: dict[str, tuple[int, Strike]] = {
    "kill a broker until rows arrive": (5, kill_until_rows),
    "kill and restart a broker": (4, kill_and_restart),
    "freeze a broker until rows arrive": (3, freeze_until_rows),
    "freeze a broker for a moment": (3, freeze_briefly),
    "restart every broker in turn": (3, rolling_restart),
    "elect leaders": (4, elect_leaders),
    "cut a broker off from the product": (3, cut_off_broker),
    "reset every connection to a broker": (2, reset_broker),
}
CLUSTER_FAULTS = {
    kind: fault
    for kind, fault in (RUN_FAULTS | SERVER_FAULTS | BROKER_FAULTS).items()
    if kind != "kill and restart the broker"
}

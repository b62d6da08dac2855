"""Several real brokers from Apache Kafka's jars: one Java process each, on 127.0.0.1."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from confluent_kafka import ElectionType, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic

from ingest_pipeline.local.server import HOST, free_port

from .broker import KAFKA_VERSION, QUICK_SINGLE_NODE, RealKafka, ServerUnavailable, asking_again
from .kafka_jars import KafkaProcess, new_id

_CONTROLLER_ID = 100
_SURVIVING_VOTERS = 3
"""The smallest number of voters that keep their majority when one of them ends."""
_NO_ELECTION = (KafkaError.ELECTION_NOT_NEEDED, KafkaError.PREFERRED_LEADER_NOT_AVAILABLE)
_QUICK_CLUSTER = {
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT",
    "broker.session.timeout.ms": "3000",
    "replica.lag.time.max.ms": "5000",
    "num.network.threads": "2",
    "num.io.threads": "2",
}


class KafkaCluster(RealKafka):
    """Brokers with the ids 1, 2, …, in ``brokers``: each is a process to kill, stop, freeze and start again.

    Three brokers or more are the controllers too, and the cluster lives on when one of them ends. Of two voters none
    may end, so one or two brokers get a controller of its own, which nothing ends before ``stop``.

    Topics have a replica on every broker and need all in-sync replicas but one to acknowledge a record, two at least
    where there are three brokers.

    Attributes:
        controllers: the controllers that are no brokers. While they are frozen no leadership moves.
        outside: broker id → the address that the broker tells clients of its second listener. It may be changed
            before the first start: to a proxy in front of ``outside_port``, or to an address that leads nowhere.
        bootstrap_servers: the first listener of every broker.
    """

    def __init__(self, folder: Path, brokers: int = 3, *, properties: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._folder, self._properties = folder, dict(properties or {})
        ids = range(1, brokers + 1)
        self._ports = {broker: free_port() for broker in ids}
        self._outside_ports = {broker: free_port() for broker in ids}
        self.outside = {broker: f"{HOST}:{port}" for broker, port in self._outside_ports.items()}
        self.bootstrap_servers = ",".join(f"{HOST}:{port}" for port in self._ports.values())
        self.description = f"Kafka {KAFKA_VERSION} from its jars, {brokers} brokers at {self.bootstrap_servers}"
        voters = ids if brokers >= _SURVIVING_VOTERS else [_CONTROLLER_ID]
        self._controller_ports = {node: free_port() for node in voters}
        self._cluster_id = new_id()
        self.brokers: dict[int, KafkaProcess] = {}
        self.controllers: list[KafkaProcess] = []

    @property
    def running(self) -> list[int]:
        """The brokers whose process exists, frozen or not."""
        return [broker for broker, process in self.brokers.items() if process.runs]

    def outside_port(self, broker: int) -> int:
        """The port of the broker's second listener, whatever address it advertises."""
        return self._outside_ports[broker]

    def start(self) -> None:
        """Start every node that does not run, all at the same time. On return every replica is in sync."""
        if not self.brokers:
            self.brokers = {broker: self._process(broker, self._broker_settings(broker)) for broker in self._ports}
            alone = self._controller_ports.keys() - self._ports.keys()
            self.controllers = [self._process(node, self._controller_settings(node)) for node in alone]
        try:
            self._at_once([process.start for process in self._processes()])
            self.wait_in_sync()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End every node by SIGKILL: brokers that all end need not hand their leaderships over."""
        self.kill()

    def kill(self) -> None:
        for process in self._processes():
            process.kill()

    def heal(self) -> None:
        """Thaw frozen nodes and start ended ones. On return every replica is in sync."""
        for process in self._processes():
            if process.runs:
                process.thaw()
        self.start()

    def restart(self, broker: int) -> None:
        """Start a broker that was ended. On return every replica of the running brokers is in sync again."""
        self.brokers[broker].start()
        self.wait_in_sync()

    def check_alive(self) -> None:
        for process in self._processes():
            process.check_alive()

    def create_topic(
        self,
        name: str,
        partitions: int = 4,
        config: Mapping[str, str] | None = None,
        *,
        replicas: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Make a topic. On return every running broker knows it, and every partition has a leader.

        Args:
            replicas: for each partition the brokers that hold it, its preferred leader first. ``partitions`` is not
                used then. Without it every broker holds every partition.
        """
        if replicas is None:
            topic = NewTopic(name, partitions, replication_factor=len(self.brokers), config=dict(config or {}))
        else:
            assignment = [list(brokers) for brokers in replicas]
            topic = NewTopic(name, len(assignment), replica_assignment=assignment, config=dict(config or {}))
        self._create(topic)
        with ThreadPoolExecutor(len(self.running)) as pool:
            list(pool.map(lambda broker: self._wait_until_known(name, broker), self.running))

    def _wait_until_known(self, topic: str, broker: int) -> None:
        """A new client has one connection, to the broker in question. A broker learns of a new topic a moment late."""
        deadline = time.monotonic() + 30
        client = AdminClient({"bootstrap.servers": f"{HOST}:{self._ports[broker]}"})
        while client.list_topics(topic, timeout=30).topics[topic].error is not None:
            if time.monotonic() > deadline:
                raise ServerUnavailable(f"{self.description}: broker {broker} does not know topic {topic!r} after 30 s")
            time.sleep(0.05)

    def leaders(self, topic: str) -> dict[int, int]:
        """Partition → its leader, -1 for none. Empty while the broker that answers does not know the topic."""
        metadata = self._metadata().topics.get(topic)
        return {} if metadata is None else {number: p.leader for number, p in metadata.partitions.items()}

    def elect_preferred(self, topic: str) -> None:
        """Give every partition back to its first replica, if that replica is in sync."""
        partitions = [TopicPartition(topic, partition) for partition in self.leaders(topic)]
        for error in self._elect(partitions).values():
            if error is not None and error.code() not in _NO_ELECTION:
                raise KafkaException(error)

    def _elect(self, partitions: list[TopicPartition]) -> dict[TopicPartition, KafkaError | None]:
        """Ask the controller, and ask again while a new controller does not answer yet."""
        # Without a time-out of its own: the client refuses that argument with a SystemError (2.16).
        ask = self.admin.elect_leaders
        return asking_again(lambda: ask(ElectionType.PREFERRED, partitions).result(60), [KafkaError._TIMED_OUT])

    def wait_in_sync(self, timeout_seconds: float = 60.0) -> None:
        """Return when every running broker has joined, every partition has a leader, and every replica on a running
        broker is in sync."""
        deadline = time.monotonic() + timeout_seconds
        problem = ""
        while time.monotonic() < deadline:
            metadata = self._metadata()
            running = set(self.running)
            problems = [f"broker {broker} has not joined" for broker in running - metadata.brokers.keys()]
            for name, topic in metadata.topics.items():
                for number, partition in topic.partitions.items():
                    behind = (set(partition.replicas) & running) - set(partition.isrs)
                    if partition.leader < 0 or behind:
                        problems.append(f"{name} {number} has leader {partition.leader}, not in sync: {sorted(behind)}")
            if not problems:
                return
            problem = problems[0]
            time.sleep(0.1)
        raise ServerUnavailable(f"{self.description}: not in sync in {timeout_seconds:g} s: {problem}")

    def _metadata(self) -> ClusterMetadata:
        """One broker's view. The client asks any broker, so a frozen one costs a try but not the answer."""
        deadline = time.monotonic() + 60
        while True:
            self.check_alive()
            try:
                return self.admin.list_topics(timeout=1)
            except KafkaException:
                if time.monotonic() > deadline:
                    raise

    def _processes(self) -> list[KafkaProcess]:
        return [*self.controllers, *self.brokers.values()]

    def _process(self, node: int, settings: Mapping[str, str]) -> KafkaProcess:
        return KafkaProcess(self._folder / str(node), settings, self._cluster_id, f"node {node} of {self.description}")

    @staticmethod
    def _at_once(calls: Collection[Callable[[], None]]) -> None:
        with ThreadPoolExecutor(len(calls)) as pool:
            for call in [pool.submit(call) for call in calls]:
                call.result()

    def _shared_settings(self, node: int) -> dict[str, str]:
        voters = ",".join(f"{voter}@{HOST}:{port}" for voter, port in self._controller_ports.items())
        factor, needed = str(len(self._ports)), str(max(1, len(self._ports) - 1))
        settings = QUICK_SINGLE_NODE | _QUICK_CLUSTER
        for name in settings:
            if name.endswith("replication.factor"):
                settings[name] = factor
            elif name.endswith("min.isr"):
                settings[name] = needed
        settings |= {"default.replication.factor": factor, "min.insync.replicas": needed}
        return settings | {"node.id": str(node), "controller.quorum.voters": voters} | self._properties

    def _broker_settings(self, broker: int) -> dict[str, str]:
        plain, outside = f"{HOST}:{self._ports[broker]}", f"{HOST}:{self._outside_ports[broker]}"
        listeners = [f"PLAINTEXT://{plain}", f"OUTSIDE://{outside}"]
        roles = "broker"
        if broker in self._controller_ports:
            roles = "broker,controller"
            listeners.append(f"CONTROLLER://{HOST}:{self._controller_ports[broker]}")
        return self._shared_settings(broker) | {
            "process.roles": roles,
            "listeners": ",".join(listeners),
            "advertised.listeners": f"PLAINTEXT://{plain},OUTSIDE://{self.outside[broker]}",
        }

    def _controller_settings(self, node: int) -> dict[str, str]:
        return self._shared_settings(node) | {
            "process.roles": "controller",
            "listeners": f"CONTROLLER://{HOST}:{self._controller_ports[node]}",
        }

"""A real Apache Kafka in a container: the vendor's image, with the settings of the one from jars."""

from collections.abc import Mapping

from testcontainers.core.container import DockerContainer

from ingest_pipeline.local.server import HOST, free_port

from .broker import HEAP, KAFKA_VERSION, QUICK_SINGLE_NODE, RealKafka, ServerUnavailable
from .containers import start_container

IMAGE = f"apache/kafka:{KAFKA_VERSION}"


class KafkaInContainer(RealKafka):
    """Kafka by testcontainers. The published port is chosen once, so clients find it again after a restart.

    testcontainers' KafkaContainer is made for another vendor's image and gets a new port at every start, so this
    class uses the generic container.
    """

    def __init__(self, properties: Mapping[str, str]) -> None:
        super().__init__()
        port = free_port()
        self.bootstrap_servers = f"{HOST}:{port}"
        self.description = f"Kafka {KAFKA_VERSION} in Docker at {self.bootstrap_servers}"
        settings = QUICK_SINGLE_NODE | {
            "controller.quorum.voters": "1@localhost:9093",
            "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            **properties,
        }
        self._container = DockerContainer(IMAGE).with_env("KAFKA_HEAP_OPTS", HEAP)
        for key, value in settings.items():
            self._container.with_env("KAFKA_" + key.upper().replace(".", "_"), value)
        # with_bind_ports would publish on every interface of this machine.
        self._container.ports["9092/tcp"] = (HOST, port)
        self._started = False

    def start(self) -> None:
        if self._started:
            self._container.get_wrapped_container().start()
        else:
            start_container(self._container, IMAGE)
            self._started = True
        try:
            self.wait_for_leaders()
        except BaseException:
            self.remove()
            raise

    def stop(self) -> None:
        if self._started:
            self._container.get_wrapped_container().stop(timeout=20)

    def kill(self) -> None:
        if self._started and self._status() == "running":
            self._container.get_wrapped_container().kill()

    def remove(self) -> None:
        """End the broker and remove its container with the data."""
        if self._started:
            self._container.stop()
            self._started = False

    def check_alive(self) -> None:
        if self._status() == "exited":
            log = self._container.get_wrapped_container().logs(tail=3).decode(errors="replace")
            raise ServerUnavailable(f"{self.description} ended by itself: {' | '.join(log.splitlines())}")

    def _status(self) -> str:
        wrapped = self._container.get_wrapped_container()
        wrapped.reload()
        return str(wrapped.status)

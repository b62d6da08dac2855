"""A real Apache Kafka from its jars: Java processes on 127.0.0.1, one of which is enough.

``python -m ingest_pipeline_tests.servers.kafka_jars`` fetches the jars and prepares them for quick starts.
"""

import base64
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from ingest_pipeline.local.child_process import Child
from ingest_pipeline.local.server import HOST, LocalServerError, free_port

from .broker import HEAP, KAFKA_VERSION, QUICK_SINGLE_NODE, RealKafka, ServerUnavailable
from .jar_cache import cache_dir, kafka_jars

_LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1} %m%n
"""


_FIRST_SNAPSHOT = "__cluster_metadata-0/00000000000000000000-0000000000.checkpoint"
"""The metadata with the feature levels, which every controller reads at its first start."""


def new_id() -> str:
    """A random id. All nodes of one cluster share the cluster's id."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def check_java() -> None:
    """Raise ServerUnavailable where there is no Java."""
    if shutil.which("java") is None:
        raise ServerUnavailable("Kafka's jars need Java 17 or newer, and java is not here")


def java(folder: Path, options: Sequence[str] = ()) -> list[str]:
    """The command of a Java process with Kafka's classes, which logs as configured in the folder."""
    check_java()
    jars = kafka_jars()
    if class_archive().exists():
        options = [f"-XX:SharedArchiveFile={class_archive()}", *options]
    logging = folder / "log4j2.properties"
    logging.write_text(_LOGGING)
    return ["java", *HEAP.split(), *options, f"-Dlog4j2.configurationFile={logging}", "-cp", f"{jars}/*"]


def class_archive() -> Path:
    """Kafka's classes as Java keeps them in memory. Without the file a broker takes half as long again to start."""
    return cache_dir() / "classes.jsa"


def make_class_archive() -> None:
    """Make the archive, unless it exists, from the classes that a broker loads in a short life."""
    if class_archive().exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        unfinished = class_archive().with_suffix(".unfinished")
        with KafkaServer(Path(folder) / "kafka", java_options=[f"-XX:ArchiveClassesAtExit={unfinished}"]) as kafka:
            kafka.create_topic("archived")
        unfinished.rename(class_archive())


@cache
def first_snapshot() -> bytes:
    """The first snapshot, from one run of Kafka's format tool on this machine. Each run would take a second."""
    kept = cache_dir() / "first.checkpoint"
    if not kept.exists():
        unfinished = kept.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(_formatted())
        unfinished.rename(kept)
    return kept.read_bytes()


def _formatted() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        properties = folder / "server.properties"
        settings = QUICK_SINGLE_NODE | {
            "controller.quorum.voters": f"1@{HOST}:1",
            "listeners": f"PLAINTEXT://{HOST}:2,CONTROLLER://{HOST}:1",
            "log.dirs": str(folder / "logs"),
        }
        properties.write_text(_lines(settings))
        command = [
            *java(folder),
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={new_id()}",
            "-c",
            str(properties),
        ]
        formatted = subprocess.run(command, capture_output=True, text=True, check=False)
        if formatted.returncode != 0:
            output = (formatted.stdout + formatted.stderr).strip().splitlines() or ["no output"]
            raise ServerUnavailable(f"Kafka's storage could not be formatted: {output[-1]}")
        return (folder / "logs" / _FIRST_SNAPSHOT).read_bytes()


def _lines(properties: Mapping[str, str]) -> str:
    return "".join(f"{key}={value}\n" for key, value in properties.items())


class KafkaProcess:
    """One node's Java process, with its files in a folder of its own.

    Args:
        settings: the content of server.properties, written at the first start.
        java_options: for the process, besides those for the heap.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        cluster_id: str,
        description: str,
        java_options: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.log_path = folder / "kafka.log"
        self.description = description
        self._settings = settings
        self._cluster_id = cluster_id
        self._java_options = java_options
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """The Java process. Raises ServerUnavailable when it does not run."""
        if self._child is None or not self._child.runs:
            raise ServerUnavailable(f"{self.description} does not run")
        return self._child.pid

    @property
    def runs(self) -> bool:
        """Whether the process is there, frozen or not."""
        return self._child is not None and self._child.runs

    def start(self) -> None:
        """Start the process. On return it does not answer clients yet."""
        if self.runs:
            return
        properties = self.folder / "server.properties"
        if not properties.exists():
            self._format(properties)
        command = [*java(self.folder, self._java_options), "kafka.Kafka", str(properties)]
        self._child = Child(self.description, command, self.log_path, end_signal=signal.SIGKILL)

    def stop(self) -> None:
        """End the process with SIGTERM: a broker hands its leaderships over first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Pause the process with SIGSTOP, until ``thaw``. On return none of its threads runs.

        On a busy machine the other threads answer clients until the first one has been scheduled and takes the signal.
        """
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def check_alive(self) -> None:
        """Raise ServerUnavailable when the process has ended by itself."""
        try:
            if self._child is not None:
                self._child.check()
        except LocalServerError as error:
            raise ServerUnavailable(str(error)) from None

    def _end(self, sign: signal.Signals) -> None:
        if self._child is not None:
            self._child.stop(sign, 60)  # a killed broker truncates its log at damaged records
            self._child = None

    def _format(self, properties: Path) -> None:
        """Write the settings, and the files of Kafka's format tool, once in this folder's life."""
        logs = self.folder / "logs"
        snapshot = logs / _FIRST_SNAPSHOT
        snapshot.parent.mkdir(parents=True, exist_ok=True)
        if "controller" in self._settings["process.roles"]:
            snapshot.write_bytes(first_snapshot())
        node = {"version": "1", "node.id": self._settings["node.id"]}
        ids = {"cluster.id": self._cluster_id, "directory.id": new_id()}
        (logs / "meta.properties").write_text(_lines(node | ids))
        properties.write_text(_lines({**self._settings, "log.dirs": str(logs)}))


class KafkaServer(RealKafka):
    """One node that is broker and controller. Ports are chosen once, so clients find it again after a restart.

    Args:
        properties: override or add to the broker's settings.
        java_options: as for `KafkaProcess`.
    """

    def __init__(
        self, folder: Path, *, properties: Mapping[str, str] | None = None, java_options: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.folder = folder
        self.bootstrap_servers = f"{HOST}:{free_port()}"
        self.description = f"Kafka {KAFKA_VERSION} from its jars at {self.bootstrap_servers}"
        controller_port = free_port()
        plain = f"PLAINTEXT://{self.bootstrap_servers}"
        settings = QUICK_SINGLE_NODE | {
            "controller.quorum.voters": f"1@{HOST}:{controller_port}",
            "listeners": f"{plain},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": plain,
            **(properties or {}),
        }
        self._process = KafkaProcess(
            folder, settings, cluster_id=new_id(), description=self.description, java_options=java_options
        )

    @property
    def pid(self) -> int:
        """The Java process. Raises ServerUnavailable when it does not run."""
        return self._process.pid

    def start(self) -> None:
        if self._process.runs:
            return
        self._process.start()
        try:
            self.wait_for_leaders()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        self._process.kill()

    def freeze(self) -> None:
        """Pause the process as SIGSTOP does, until ``thaw``."""
        self._process.freeze()

    def thaw(self) -> None:
        self._process.thaw()

    def check_alive(self) -> None:
        self._process.check_alive()


if __name__ == "__main__":
    print(kafka_jars())
    make_class_archive()

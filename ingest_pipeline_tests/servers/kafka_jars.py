"""A real Apache Kafka from its jars: Java processes on 127.0.0.1, one of which is enough."""

import base64
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from ingest_pipeline.local.child_process import Child
from ingest_pipeline.local.server import HOST, LocalServerError, free_port

from .broker import HEAP, KAFKA_VERSION, QUICK_SINGLE_NODE, RealKafka, ServerUnavailable
from .jar_cache import kafka_jars

_LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1} %m%n
"""


def new_cluster_id() -> str:
    """A random id, which all nodes of one cluster share."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def check_java() -> None:
    """Raise ServerUnavailable where there is no Java."""
    if shutil.which("java") is None:
        raise ServerUnavailable("Kafka's jars need Java 17 or newer, and java is not here")


class KafkaProcess:
    """One node's Java process, with its files in a folder of its own.

    Args:
        settings: the content of server.properties, written at the first start.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], cluster_id: str, description: str) -> None:
        self.folder = folder
        self.log_path = folder / "kafka.log"
        self.description = description
        self._settings = settings
        self._cluster_id = cluster_id
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
        check_java()
        java = ["java", *HEAP.split(), f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"]
        java += ["-cp", f"{kafka_jars()}/*"]
        properties = self.folder / "server.properties"
        if not properties.exists():
            self._format(java, properties)
        command = [*java, "kafka.Kafka", str(properties)]
        self._child = Child(self.description, command, self.log_path, end_signal=signal.SIGKILL)

    def stop(self) -> None:
        """End the process with SIGTERM: a broker hands its leaderships over first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Pause the process with SIGSTOP, until ``thaw``."""
        os.kill(self.pid, signal.SIGSTOP)

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

    def _format(self, java: list[str], properties: Path) -> None:
        """Write the settings and make an empty log folder, once in this folder's life."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.properties").write_text(_LOGGING)
        settings = {**self._settings, "log.dirs": str(self.folder / "logs")}
        unfinished = properties.with_suffix(".unfinished")
        unfinished.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        # With "=", because an id that begins with a hyphen would be taken for an option.
        command = [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={self._cluster_id}"]
        formatted = subprocess.run([*command, "-c", str(unfinished)], capture_output=True, text=True, check=False)
        if formatted.returncode != 0:
            output = (formatted.stdout + formatted.stderr).strip().splitlines() or ["no output"]
            raise ServerUnavailable(f"Kafka's storage could not be formatted: {output[-1]}")
        unfinished.rename(properties)


class KafkaServer(RealKafka):
    """One node that is broker and controller. Ports are chosen once, so clients find it again after a restart.

    ``properties`` override or add to the broker's settings.
    """

    def __init__(self, folder: Path, *, properties: Mapping[str, str] | None = None) -> None:
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
        self._process = KafkaProcess(folder, settings, new_cluster_id(), self.description)

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

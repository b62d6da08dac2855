"""A real Apache Kafka from its jars: one Java process that is broker and controller, on 127.0.0.1."""

import base64
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from ingest_pipeline.demo.local import HOST, Guard, end, free_port, last_lines

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


class KafkaServer(RealKafka):
    """Kafka in a folder of its own. Ports are chosen once, so clients find it again after a restart.

    ``properties`` override or add to the broker's settings. The process has its own session: it outlives
    Ctrl-C in the terminal and ends with ``stop`` or ``kill``.
    """

    def __init__(self, folder: Path, *, properties: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.log_path = folder / "kafka.log"
        self.port = free_port()
        self.bootstrap_servers = f"{HOST}:{self.port}"
        self.description = f"Kafka {KAFKA_VERSION} from its jars at {self.bootstrap_servers}"
        self._properties = dict(properties or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    @property
    def pid(self) -> int:
        """The Java process. Raises ServerUnavailable when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ServerUnavailable(f"{self.description} does not run")
        return self._process.pid

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        if shutil.which("java") is None:
            raise ServerUnavailable("Kafka's jars need Java 17 or newer, and java is not here")
        java = ["java", *HEAP.split(), f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"]
        java += ["-cp", f"{kafka_jars()}/*"]
        properties = self.folder / "server.properties"
        if not properties.exists():
            self._format(java, properties)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*java, "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._guard = Guard(self._process.pid, signal.SIGKILL)
        try:
            self.wait_for_leaders()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, sign: signal.Signals) -> None:
        if self._process is not None:
            end(self._process, sign, 20)
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None

    def freeze(self) -> None:
        """Stop it from running without ending it, as a long pause would; ``thaw`` lets it go on."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def check_alive(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            raise ServerUnavailable(f"{self.description} ended by itself: {last_lines(self.log_path)}")

    def _format(self, java: list[str], properties: Path) -> None:
        """Write the settings and make an empty log folder, once in this folder's life."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.properties").write_text(_LOGGING)
        controller_port = free_port()
        plain = f"PLAINTEXT://{self.bootstrap_servers}"
        settings = QUICK_SINGLE_NODE | {
            "controller.quorum.voters": f"1@{HOST}:{controller_port}",
            "listeners": f"{plain},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": plain,
            "log.dirs": str(self.folder / "logs"),
        }
        unfinished = properties.with_suffix(".unfinished")
        unfinished.write_text("".join(f"{key}={value}\n" for key, value in (settings | self._properties).items()))
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # One word: an id that begins with a hyphen would be taken for an option.
        command = [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(unfinished)]
        formatted = subprocess.run(command, capture_output=True, text=True, check=False)
        if formatted.returncode != 0:
            said = (formatted.stdout + formatted.stderr).strip().splitlines() or ["nothing said"]
            raise ServerUnavailable(f"Kafka's storage could not be formatted: {said[-1]}")
        unfinished.rename(properties)

"""A real schema registry, Apicurio's, on 127.0.0.1. It keeps its schemas in memory."""

import os
import signal
import tarfile
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from ingest_pipeline.local.child_process import Child
from ingest_pipeline.local.server import HOST, LocalServer, free_port

from .jar_cache import cache_root, fetched, maven
from .kafka_jars import check_java
from .starting import wait_until_ready

_VERSION = "3.0.9"  # newer ones need Java 21
_ARTIFACT = f"io.apicurio:apicurio-registry-app:{_VERSION}:tar.gz:all"
_JAR = f"apicurio-registry-app-{_VERSION}-runner.jar"
_START_SECONDS = 120.0


def registry_files() -> Path:
    """The folder of the unpacked registry, fetched first when it is missing. Raises ServerUnavailable."""
    return fetched(cache_root() / f"apicurio-registry-{_VERSION}" / "files", "the schema registry", _fetch)


def _fetch(folder: Path) -> None:
    archive = folder.parent / f"apicurio-registry-app-{_VERSION}-all.tar.gz"
    get = ("dependency:get", f"-Dartifact={_ARTIFACT}", "-Dtransitive=false")
    copy = ("dependency:copy", f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={archive.parent}")
    for goal in (get, copy):
        maven("the schema registry", *goal, cwd=folder.parent)
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    archive.unlink()


class SchemaRegistryServer(LocalServer):
    """One registry. Its port stays the same after a restart."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._child: Child | None = None
        self.url = f"http://{HOST}:{self._port}/apis/ccompat/v7"
        self.description = f"Apicurio Registry {_VERSION} at {HOST}:{self._port}"

    def start(self) -> None:
        check_java()
        files = registry_files()
        environment = {**os.environ, "QUARKUS_HTTP_HOST": HOST, "QUARKUS_HTTP_PORT": str(self._port)}
        command = ["java", "-Xmx300m", "-XX:TieredStopAtLevel=1", "-jar", str(files / _JAR)]
        log = self._folder / "schema-registry.log"
        self._child = Child(
            "the schema registry", command, log, cwd=str(files), env=environment, end_signal=signal.SIGTERM
        )
        wait_until_ready(self._child, self._answers)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(grace_seconds=10.0)
            self._child = None

    def freeze(self) -> None:
        """Pause the process with SIGSTOP, until `thaw`. Its schemas stay."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGSTOP)
        os.waitpid(self._child.pid, os.WUNTRACED)

    def thaw(self) -> None:
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/subjects", timeout=5.0) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


if __name__ == "__main__":
    print(registry_files())

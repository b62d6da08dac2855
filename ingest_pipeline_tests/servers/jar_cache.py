"""Apache Kafka's jars, fetched once by Maven into a cache outside the work tree."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from .broker import KAFKA_VERSION, ServerUnavailable

_LOG4J_VERSION = "2.25.4"
_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{_LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def cache_root() -> Path:
    """The folder of all fetched servers: below XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ingest-pipeline"


def cache_dir() -> Path:
    """The folder of this version's jars."""
    return cache_root() / f"kafka-{KAFKA_VERSION}"


def kafka_jars() -> Path:
    """The folder with Kafka's jars, fetched first when they are missing. Raises ServerUnavailable."""
    return fetched(cache_dir() / "libs", "Kafka's jars", _fetch_kafka)


def fetched(files: Path, what: str, fetch: Callable[[Path], None]) -> Path:
    """The folder `files`, fetched first when it is missing. Of several processes at once, one fetches and the others
    wait.

    Args:
        fetch: called with a folder beside `files`, to fill.

    Raises:
        ServerUnavailable: without Maven, or with Maven's own first error line.
    """
    if files.is_dir():
        return files
    if shutil.which("mvn") is None:
        raise ServerUnavailable(f"the cache lacks {what}, and Maven (mvn), which fetches the files, is not here")
    files.parent.mkdir(parents=True, exist_ok=True)
    with (files.parent / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not files.is_dir():
            unfinished = files.with_name(f"{files.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            fetch(unfinished)
            unfinished.rename(files)
    return files


def maven(what: str, *arguments: str, cwd: Path, timeout_seconds: float = 600.0) -> None:
    """Run Maven. Raises ServerUnavailable."""
    command = ["mvn", "--batch-mode", "--quiet", "--strict-checksums", *arguments]
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        raise ServerUnavailable(f"Maven did not fetch {what} in {timeout_seconds:g} s") from None
    if done.returncode != 0:
        output = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
        raise ServerUnavailable(f"Maven could not fetch {what}: {output[0]}")


def _fetch_kafka(folder: Path) -> None:
    (folder.parent / "pom.xml").write_text(_POM)
    maven("Kafka's jars", "dependency:copy-dependencies", f"-DoutputDirectory={folder}", cwd=folder.parent)

"""Apache Kafka's jars, fetched once by Maven into a cache outside the work tree."""

import fcntl
import os
import shutil
import subprocess
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


def kafka_jars(timeout_seconds: float = 600.0) -> Path:
    """The folder with Kafka's jars, fetched first when they are missing.

    Of several processes at once, one fetches and the others wait. Raises ServerUnavailable without
    Maven, or with Maven's own first error line.
    """
    folder = cache_dir()
    jars = folder / "libs"
    if jars.is_dir():
        return jars
    if shutil.which("mvn") is None:
        raise ServerUnavailable("Kafka's jars are not in the cache and Maven (mvn), which fetches them, is not here")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            _fetch(folder, jars, timeout_seconds)
    return jars


def _fetch(folder: Path, jars: Path, timeout_seconds: float) -> None:
    unfinished = folder / "libs.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    (folder / "pom.xml").write_text(_POM)
    command = ["mvn", "--batch-mode", "--quiet", "--strict-checksums", "dependency:copy-dependencies"]
    command.append(f"-DoutputDirectory={unfinished}")
    try:
        fetched = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=timeout_seconds
        )
    except subprocess.TimeoutExpired:
        raise ServerUnavailable(f"Maven did not fetch Kafka's jars in {timeout_seconds:g} s") from None
    if fetched.returncode != 0:
        output = (fetched.stdout + fetched.stderr).strip().splitlines() or ["no output"]
        raise ServerUnavailable(f"Maven could not fetch Kafka's jars: {output[0]}")
    unfinished.rename(jars)

"""Whether a Docker engine is there, and how a container is started on it."""

import gc
import warnings

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException
from testcontainers.core.container import DockerContainer

from .broker import ServerUnavailable

_ENGINE_SECONDS = 2


def check_engine() -> None:
    """Raise ServerUnavailable when no Docker engine answers within two seconds."""
    with warnings.catch_warnings():
        # The client leaves a socket to a dead engine open. The warning of its collection is ignored here.
        warnings.simplefilter("ignore", ResourceWarning)
        problem = _engine_problem()
        gc.collect()
    if problem is not None:
        raise ServerUnavailable(f"no Docker engine answers ({problem})")


def _engine_problem() -> str | None:
    try:
        client = docker.from_env(timeout=_ENGINE_SECONDS)
        try:
            client.ping()
        finally:
            client.close()
    except (DockerException, RequestException) as error:
        return type(error).__name__
    return None


def start_container(container: DockerContainer, image: str) -> None:
    """Start the container, and pull its image when needed. Raises ServerUnavailable when the engine refuses.

    testcontainers also starts a reaper, a container that removes the others when this process is killed, unless
    TESTCONTAINERS_RYUK_DISABLED=true.
    """
    try:
        container.start()
    except (DockerException, RequestException) as error:
        raise ServerUnavailable(f"Docker did not start {image}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    explanation = getattr(error, "explanation", None) or str(error)
    return str(explanation).splitlines()[0] if str(explanation) else type(error).__name__

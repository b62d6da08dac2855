"""What the demo asks a running Dagster, by its GraphQL."""

import http.client
import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..local.server import HOST, LocalServerError

_UNREACHABLE = "DagsterUserCodeUnreachableError"
_WATCH_SECONDS = 3.0
_RELOAD_PAUSE_SECONDS = 15.0

_RUNS = """query ($filter: RunsFilter!) { runsOrError(filter: $filter, limit: 500) { __typename ... on Runs { results {
    runId status jobName tags { key value } } } } }"""
_LOCATIONS = """{ workspaceOrError { __typename ... on Workspace { locationEntries { name locationOrLoadError {
    __typename
    ... on PythonError { className }
    ... on RepositoryLocation { repositories { sensors { sensorState { ticks(limit: 1) { error { className } } } } } }
} } } } }"""
_RELOAD = "mutation { reloadWorkspace { __typename } }"


class DagsterAway(LocalServerError):
    """Dagster's web server gave no answer, or none that can be read."""


@dataclass(frozen=True)
class DagsterRun:
    """A run, as the Runs page shows it."""

    run_id: str
    status: str
    tags: dict[str, str]


class DagsterApi:
    """GraphQL of the web server at a port of this machine. Usable from several threads.

    Every call raises DagsterAway when there is no answer.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def ask(self, query: str, timeout_seconds: float = 10.0, **variables: Any) -> dict[str, Any]:
        """The answer's data, by field."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout_seconds)
        body = json.dumps({"query": query, "variables": variables})
        try:
            connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DagsterAway(f"Dagster at {self.url} gave no answer: {type(error).__name__}") from error
        finally:
            connection.close()
        if not isinstance(answer, dict) or not answer.get("data"):
            raise DagsterAway(f"Dagster at {self.url} refused a question: {str(answer)[:200]}")
        data: dict[str, Any] = answer["data"]
        return data

    def answers(self) -> bool:
        """Whether it has started up."""
        try:
            return "version" in self.ask("{ version }", 5.0)
        except DagsterAway:
            return False

    def runs(self, tags: dict[str, str] | None = None, statuses: Iterable[str] = ()) -> list[DagsterRun]:
        """The newest 500 runs with all of the tags and one of the statuses, newest first."""
        chosen: dict[str, object] = {"tags": [{"key": key, "value": value} for key, value in (tags or {}).items()]}
        if statuses := list(statuses):
            chosen["statuses"] = statuses
        found = self.ask(_RUNS, filter=chosen)["runsOrError"]
        return [
            DagsterRun(run["runId"], run["status"], {tag["key"]: tag["value"] for tag in run["tags"]})
            for run in found.get("results", [])
        ]

    def location_died(self) -> bool:
        """Whether the process that holds the code is gone: no sensor ticks then, and nothing restarts it."""
        for entry in self.ask(_LOCATIONS)["workspaceOrError"].get("locationEntries", []):
            loaded = entry["locationOrLoadError"] or {}
            ticks = [
                tick
                for repository in loaded.get("repositories", [])
                for sensor in repository["sensors"]
                for tick in sensor["sensorState"]["ticks"]
            ]
            errors = [loaded, *(tick["error"] or {} for tick in ticks)]
            if any(error.get("className") == _UNREACHABLE for error in errors):
                return True
        return False

    def reload(self) -> None:
        """Start the process that holds the code anew."""
        self.ask(_RELOAD, timeout_seconds=60.0)


class LocationWatch:
    """While entered, a thread reloads the code location when it died; `reloads` counts."""

    def __init__(self, api: DagsterApi) -> None:
        self.reloads = 0
        self._api = api
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="location-watch", daemon=True)

    def __enter__(self) -> "LocationWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Does not wait for a reload under way: Dagster is about to end anyway."""
        self._over.set()

    def _watch(self) -> None:
        not_before = 0.0
        while not self._over.wait(_WATCH_SECONDS):
            try:
                if time.monotonic() >= not_before and self._api.location_died():
                    self._api.reload()
                    self.reloads += 1
                    not_before = time.monotonic() + _RELOAD_PAUSE_SECONDS  # until ticks tell of it
            except DagsterAway:
                continue

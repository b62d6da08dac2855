"""A real `dagster dev` in a folder of its own, and questions to it over HTTP."""

import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.error import URLError

import ingest_pipeline
from ingest_pipeline.local.child_process import Child
from ingest_pipeline.local.process_family import Family
from ingest_pipeline.local.server import HOST, free_port
from ingest_pipeline_tests.orchestration.bench import wait_for

ROOT = Path(ingest_pipeline.__file__).parents[1]
START_SECONDS = 90.0
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}

_RUNS = "{runsOrError(limit: 100) {... on Runs {results {runId status jobName tags {key value}}}}}"
_TIMES = "query ($id: ID!) {runOrError(runId: $id) {... on Run {startTime endTime}}}"
_LOCATIONS = """{workspaceOrError {... on Workspace {locationEntries {
    locationOrLoadError {__typename ... on RepositoryLocation {name} ... on PythonError {message}}}}}}"""
_TICKS = """query ($selector: SensorSelector!) {sensorOrError(sensorSelector: $selector) {... on Sensor {
    sensorState {ticks(limit: 1) {status timestamp skipReason error {message}}}}}}"""
_TICK_RUNS = """query ($selector: SensorSelector!) {sensorOrError(sensorSelector: $selector) {... on Sensor {
    sensorState {ticks(limit: 50) {timestamp endTimestamp runIds}}}}}"""
_STATE = "query ($s: SensorSelector!) {sensorOrError(sensorSelector: $s) {... on Sensor {sensorState {id status}}}}"
_START = "mutation ($selector: SensorSelector!) {startSensor(sensorSelector: $selector) {__typename}}"
_STOP = "mutation ($id: String!) {stopSensor(id: $id) {__typename}}"
_RELOAD = "mutation ($name: String!) {reloadRepositoryLocation(repositoryLocationName: $name) {__typename}}"
_TERMINATE = "mutation ($id: String!) {terminateRun(runId: $id) {__typename}}"
_LAUNCH = """mutation ($parameters: ExecutionParams!) {launchRun(executionParams: $parameters) {
    __typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}}"""
_MATERIALIZATIONS = """query ($id: ID!) {runOrError(runId: $id) {... on Run {assetMaterializations {
    assetKey {path} metadataEntries {label ... on TextMetadataEntry {text} ... on IntMetadataEntry {intValue}}}}}}"""

_OBSERVATIONS = """query ($key: AssetKeyInput!) {assetOrError(assetKey: $key) {... on Asset {
    assetObservations(limit: 100) {metadataEntries {label ... on IntMetadataEntry {intValue}}}}}}"""


class Run(NamedTuple):
    run_id: str
    status: str
    job: str
    tags: Mapping[str, str]

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class DagsterDev:
    """Webserver, daemon and code server, with our dagster.yaml and this environment alone.

    Args:
        arguments: what to load; our workspace.yaml when there are none.
        settings: what our dagster.yaml gets in addition.
        project: a project of the tool `dg`, which `dg dev` loads instead.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        arguments: Sequence[str] = (),
        settings: str = "",
        project: Path | None = None,
    ) -> None:
        self.folder, self.port = folder, free_port()
        self._settings = settings
        self._arguments, self._project = arguments, project
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
        self.environ = {**kept, "PYTHONPATH": str(ROOT), **environ}
        self._child: Child | None = None

    def __enter__(self) -> Self:
        (self.folder / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text() + self._settings)
        if not self._arguments and self._project is None:
            shutil.copy(ROOT / "workspace.yaml", self.folder)
        dagster = [sys.executable, "-m", "dagster"]
        tool = dagster if self._project is None else [str(Path(sys.executable).with_name("dg"))]
        command = [*tool, "dev", "--host", HOST, "--port", str(self.port), *self._arguments]
        cwd = self._project or self.folder
        self._child = Child("Dagster", command, self.folder / "dagster.log", env=self.environ, cwd=cwd)
        try:
            wait_for("the code location", self._loaded, START_SECONDS, every=0.2)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End Dagster as Ctrl-C does, and then kill what is left of it."""
        assert self._child is not None
        self._child.stop(grace_seconds=60, left_seconds=0)

    @property
    def session(self) -> int:
        """The id of the session that all of its processes are in."""
        assert self._child is not None
        return self._child.pid

    @property
    def family(self) -> Family:
        """All of its processes, also in other sessions."""
        assert self._child is not None
        return self._child.family

    def ask(self, query: str, **variables: Any) -> Any:
        """The `data` of a GraphQL answer."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://{HOST}:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        return found["data"]

    def runs(self, stream: str | None = None) -> list[Run]:
        """Newest first; of one stream's sensor when it is named."""
        found = [
            Run(run["runId"], run["status"], run["jobName"], {tag["key"]: tag["value"] for tag in run["tags"]})
            for run in self.ask(_RUNS)["runsOrError"]["results"]
        ]
        return [run for run in found if stream is None or run.job == f"drain_{stream}"]

    def run(self, run_id: str) -> Run:
        (found,) = [run for run in self.runs() if run.run_id == run_id]
        return found

    def times(self, run_id: str) -> tuple[float, float]:
        """When the run's process started and when it ended, in Unix time."""
        found = self.ask(_TIMES, id=run_id)["runOrError"]
        return float(found["startTime"] or "inf"), float(found["endTime"] or "inf")

    def ended(self, run_id: str) -> Run:
        """The run, once it has ended."""
        found: Run = wait_for(
            f"the end of run {run_id}", lambda: run if (run := self.run(run_id)).ended else None, every=0.5
        )
        return found

    def skip_reason(self, stream: str) -> str:
        """Why the sensor's last tick launched nothing; "" when it did."""
        return str(self._tick(stream).get("skipReason") or "")

    def tick_of(self, stream: str) -> float:
        """When the sensor's last tick began, in Unix time."""
        return float(self._tick(stream).get("timestamp", 0.0))

    def ticks_before_launch(self, stream: str, since: float) -> int:
        """How many ticks after this time launched nothing before a tick launched a run."""
        ticks = self._ticks(_TICK_RUNS, stream)
        launches = [bool(tick["runIds"]) for tick in reversed(ticks) if tick["timestamp"] > since]
        assert any(launches), ticks
        return launches.index(True)

    def tick_seconds(self, stream: str) -> list[float]:
        """Durations of the newest ticks that launched nothing."""
        ended = [tick for tick in self._ticks(_TICK_RUNS, stream) if tick["endTimestamp"] and not tick["runIds"]]
        return [tick["endTimestamp"] - tick["timestamp"] for tick in ended]

    def _tick(self, stream: str) -> dict[str, Any]:
        return next(iter(self._ticks(_TICKS, stream)), {})

    def _ticks(self, query: str, stream: str) -> list[dict[str, Any]]:
        """The sensor's newest ticks, newest first."""
        selector = {**self._repository(), "sensorName": f"{stream}_sensor"}
        ticks: list[dict[str, Any]] = self.ask(query, selector=selector)["sensorOrError"]["sensorState"]["ticks"]
        return ticks

    def switch_sensor(self, stream: str, on: bool) -> None:
        """As the switch in the UI does."""
        selector = {**self._repository(), "sensorName": f"{stream}_sensor"}
        state = self.ask(_STATE, s=selector)["sensorOrError"]["sensorState"]
        if on:
            self.ask(_START, selector=selector)
        else:
            self.ask(_STOP, id=state["id"])
        after = self.ask(_STATE, s=selector)["sensorOrError"]["sensorState"]
        assert after["status"] == ("RUNNING" if on else "STOPPED")

    def reload(self) -> None:
        """Load the code location again, as the button does after a deployment. Runs go on."""
        answer = self.ask(_RELOAD, name=self._location)["reloadRepositoryLocation"]
        assert answer["__typename"] == "WorkspaceLocationEntry", answer

    def terminate(self, run_id: str) -> None:
        assert self.ask(_TERMINATE, id=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"

    def materialize(self, *assets: str) -> str:
        """As the button does; the run's id."""
        parameters = {
            "selector": {
                **self._repository(),
                "jobName": "__ASSET_JOB",
                "assetSelection": [{"path": [name]} for name in assets],
            },
            "runConfigData": {},
        }
        launched = self.ask(_LAUNCH, parameters=parameters)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def materialized(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Asset → metadata of what a run materialized."""
        events = self.ask(_MATERIALIZATIONS, id=run_id)["runOrError"]["assetMaterializations"]
        return {
            event["assetKey"]["path"][0]: {
                entry["label"]: entry.get("text", entry.get("intValue")) for entry in event["metadataEntries"]
            }
            for event in events
        }

    def observed(self, *path: str) -> list[dict[str, int | None]]:
        """Of each observation of an asset, newest first: label → whole number."""
        asset = self.ask(_OBSERVATIONS, key={"path": list(path)})["assetOrError"]
        return [
            {entry["label"]: entry.get("intValue") for entry in event["metadataEntries"]}
            for event in asset.get("assetObservations", [])
        ]

    def _repository(self) -> dict[str, str]:
        return {"repositoryName": "__repository__", "repositoryLocationName": self._location}

    def _loaded(self) -> bool:
        assert self._child is not None
        self._child.check()
        try:
            entries = self.ask(_LOCATIONS)["workspaceOrError"]["locationEntries"]
        except (URLError, ConnectionError, TimeoutError):
            return False
        if not entries or entries[0]["locationOrLoadError"] is None:
            return False
        (location,) = [entry["locationOrLoadError"] for entry in entries]
        assert location["__typename"] == "RepositoryLocation", location
        self._location = location["name"]
        return True

"""A real Prometheus, Debian's `prometheus` package, that scrapes one endpoint of this machine."""

import json
import shutil
import signal
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from ingest_pipeline.local.child_process import Child
from ingest_pipeline.local.server import HOST, LocalServer, free_port

from .broker import ServerUnavailable
from .starting import wait_until_ready

SCRAPE_SECONDS = 2
_START_SECONDS = 60.0
_END_SECONDS = 20.0


def programs() -> tuple[str, str]:
    """(prometheus, promtool). Raises ServerUnavailable when one is not on PATH."""
    paths = {name: shutil.which(name) for name in ("prometheus", "promtool")}
    if absent := [name for name, path in paths.items() if path is None]:
        raise ServerUnavailable(f"{' and '.join(absent)} not on PATH; Debian's package prometheus has both")
    return str(paths["prometheus"]), str(paths["promtool"])


class PrometheusServer(LocalServer):
    """Scrapes `target` (host:port) every SCRAPE_SECONDS and evaluates the rules of a file."""

    def __init__(self, folder: Path, target: str, rules: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._config = {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "ingest", "static_configs": [{"targets": [target]}]}],
        }

    def start(self) -> None:
        config, log = self._folder / "prometheus.yml", self._folder / "prometheus.log"
        config.write_text(json.dumps(self._config))  # JSON is YAML
        command = [programs()[0], f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'tsdb'}"]
        command += [f"--web.listen-address={HOST}:{self._port}", "--log.level=warn"]
        self._child = Child("prometheus", command, log, end_signal=signal.SIGTERM)
        wait_until_ready(self._child, self._ready)

    def stop(self) -> None:
        self._child.stop(grace_seconds=_END_SECONDS)

    def query(self, expression: str) -> list[dict[str, str]]:
        """The labels of every series that the expression gives now. Raises AssertionError with the server's error."""
        answer = self._ask(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        return [series["metric"] for series in answer["data"]["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """The loaded rules, with `name`, `health`, `state`."""
        return [rule for group in self._ask("/api/v1/rules")["data"]["groups"] for rule in group["rules"]]

    def _ask(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self._port}{path}", timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self._port}/-/ready", timeout=5):
                return True
        except OSError:
            return False

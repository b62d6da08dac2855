"""The files of deploy/: each query of dashboard and alert rules, against the real endpoint, in a real Prometheus."""

import json
import re
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import make_server

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ingest_pipeline.cli.metrics import _Handler, _Server
from ingest_pipeline.core.loss import noted_loss
from ingest_pipeline.operations.metrics import application
from ingest_pipeline_tests.orchestration.bench import Bench, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.conftest import PRICE, TEMPERATURE
from ingest_pipeline_tests.orchestration.records import prices, temperatures, with_broken
from ingest_pipeline_tests.orchestration.test_metrics import exposed
from ingest_pipeline_tests.servers.prometheus import PrometheusServer

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES, DASHBOARD = DEPLOY / "prometheus-alerts.yaml", DEPLOY / "grafana-dashboard.json"
UNLESS_PAUSED = " unless on (stream) ingest_paused == 1"
CASES = Path(__file__).with_name("alert_cases.yaml")
Make = Callable[..., Bench]
Prometheus = Callable[[str, Path], PrometheusServer]


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def panel_queries() -> list[str]:
    """With what Grafana puts in for its variables."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel["targets"]]
    return [text.replace("$stream", ".*").replace("$__rate_interval", "1m") for text in texts]


def texts_shown() -> list[tuple[str, str]]:
    """(expression, text with labels in it) of legends and annotations."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    legends = [(target["expr"], target["legendFormat"]) for panel in panels for target in panel["targets"]]
    notes = [(rule["expr"], note) for rule in alerts().values() for note in rule["annotations"].values()]
    return legends + notes


@pytest.fixture
def bench(make_bench: Make) -> Iterator[Bench]:
    """Two streams that have drained: one owned, with dead letters and records waiting; the other with no run."""
    found = make_bench(streams=[TEMPERATURE, PRICE])
    temperature, price = found.streams
    found.produce(with_broken(temperatures(20), 7), temperature)
    found.produce(prices(20), price)
    found.drain()
    job = found.definitions.resolve_job_def("drain_price")
    assert job.execute_in_process(
        instance=found.instance, tags={"ingest/stream": "price", "ingest/shard": "0/1"}
    ).success
    found.tick()
    found.produce(temperatures(2, first=20), temperature)
    found.produce(prices(4), price)
    with closing(found.clients.writing_connection("0ddba11-and-more")) as connection:
        owner = found.clients.ledger_session(connection, temperature)
        assert owner.own([0, 1], exact=True) == {}
        yield found


@contextmanager
def served(bench: Bench) -> Iterator[str]:
    """host:port of the bench's endpoint, as `ingest metrics` serves it."""
    server = make_server("127.0.0.1", 0, application(bench.contexts), _Server, _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_every_query_names_what_the_endpoint_shows(bench: Bench) -> None:
    labels: dict[str, set[str]] = defaultdict(set)
    values: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(exposed(bench)):
        for sample in family.samples:
            labels[sample.name] |= set(sample.labels)
            values[sample.name] |= set(sample.labels.values())
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    for variable in variables:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
            assert asked is not None and asked[2] in labels[asked[1]], variable
    queries = [*panel_queries(), *(rule["expr"].split(UNLESS_PAUSED)[0] for rule in alerts().values())]
    assert len(queries) > 20
    for query in queries:
        selectors = re.findall(r"\b(ingest_\w+)(?:\{([^}]*)\})?", query)
        assert selectors, query
        for name, matchers in selectors:
            assert name in labels, query
            for label, sign, value in re.findall(r'(\w+)(=~|=|!=|!~)"([^"]*)"', matchers):
                assert label in labels[name], query
                assert sign != "=" or value in values[name], query
        shared = set.intersection(*(labels[name] for name, _ in selectors))
        for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
            assert set(grouped.split(", ")) <= shared, query


def test_every_label_in_a_text_is_left_by_its_query() -> None:
    for query, text in texts_shown():
        outer = re.match(r"(?:time\(\) - )?\w+ by \(([^)]*)\)", query)
        left = set(outer[1].split(", ")) if outer else {"stream", "partition"}
        assert set(re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", text)) <= left, (query, text)


def test_every_metric_is_on_the_dashboard(bench: Bench) -> None:
    shown = set(re.findall(r"\bingest_\w+", " ".join(panel_queries())))
    told = {sample.name for family in text_string_to_metric_families(exposed(bench)) for sample in family.samples}
    assert shown == told


def test_names_and_units_are_prometheus_own(bench: Bench, promtool: str) -> None:
    done = subprocess.run([promtool, "check", "metrics"], input=exposed(bench), text=True, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_each_alert_fires_and_ends_as_it_should(promtool: str) -> None:
    for words in (["check", "rules", str(RULES)], ["test", "rules", str(CASES)]):
        done = subprocess.run([promtool, *words], text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    fired = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fired == silent == set(alerts())


def test_a_real_prometheus_answers_every_query(bench: Bench, prometheus: Prometheus) -> None:
    with served(bench) as target, prometheus(target, RULES) as server:
        for query in panel_queries():
            found = wait_for(query, lambda query=query: server.query(query))
            assert {labels["stream"] for labels in found} <= {"temperature", "price"}

        def holding() -> set[tuple[str, str]]:
            found = {name: server.query(rule["expr"]) for name, rule in alerts().items()}
            return {(name, labels.get("stream", "")) for name, series in found.items() for labels in series}

        letters = ("IngestOpenDeadLetters", "temperature")
        expected = {letters, ("IngestNobodyDrains", "price")}
        wait_for(f"{expected}", lambda: holding() == expected)
        ingest(bench, "pause", "price")
        expected = {letters, ("IngestPaused", "price")}
        wait_for(f"{expected}", lambda: holding() == expected)
        ingest(bench, "resume", "price")
        ledger = bench.clients.ledger(bench.streams[1])
        at = ledger.positions()[0]
        loss = noted_loss(
            cause="truncated", partition=0, incarnation=at.incarnation, expected=at.next_offset, low=0, high=1
        )
        ledger.note_loss(loss)
        expected = {letters, ("IngestNobodyDrains", "price")}
        bench.query("alter table ingest.position drop constraint accounted_for")
        bench.query("update ingest.position set lost = lost + 1 where kafka_partition = 1 and stream = 'temperature'")
        expected |= {("IngestStopped", "price"), ("IngestUnaccounted", "temperature"), ("IngestLost", "temperature")}
        wait_for(f"{expected}", lambda: holding() == expected)
        wait_for("an evaluation", lambda: {rule["health"] for rule in server.rules()} == {"ok"})
        assert {rule["name"] for rule in server.rules()} == set(alerts())

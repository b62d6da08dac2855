"""`ingest metrics` as a process, scraped over HTTP: what it says is what ledger and broker hold."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.error import HTTPError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingest_pipeline.operations.metrics import application
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.commands import ingest, interruptible
from ingest_pipeline_tests.orchestration.dagster_dev import ROOT
from ingest_pipeline_tests.orchestration.records import temperatures, with_broken

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]
Samples = dict[tuple[str, ...], float]


def exposed(bench: Bench) -> str:
    return body(bench, "/metrics")


def body(bench: Bench, path: str) -> str:
    """The endpoint's own text."""
    status: list[str] = []
    asked = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    answer = application(bench.contexts)(asked, lambda line, *_: status.append(line))
    assert status == ["200 OK"]
    return b"".join(answer).decode()


def scraped(bench: Bench) -> Samples:
    """(name, label values…) → value."""
    families = text_string_to_metric_families(exposed(bench))
    labels = ("stream", "partition", "state", "stage", "sqlstate_class")
    return {
        (record.name, *(record.labels[label] for label in labels if label in record.labels)): record.value
        for family in families
        for record in family.samples
    }


def test_the_metrics_agree_with_the_tables(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(with_broken(temperatures(20), 7))
    bench.drain()
    bench.tick()
    bench.produce(temperatures(3, first=20))
    found = scraped(bench)
    assert found["ingest_sensor_last_tick_timestamp_seconds", "temperature"] > 1.7e9
    assert sum(value for (name, *_), value in found.items() if name == "ingest_rows_total") == bench.rows() == 18
    assert sum(value for (name, *_), value in found.items() if name == "ingest_dead_letters_total") == 2
    for partition in "01":
        assert found["ingest_open_dead_letters", "temperature", partition, "decode", ""] == 1
    assert sum(value for (name, *_), value in found.items() if name == "ingest_lag_records") == 3
    for partition, next_offset in bench.positions().items():
        place = "temperature", str(partition)
        assert found["ingest_position_offset", *place] == next_offset
        assert found["ingest_end_offset", *place] == next_offset + found["ingest_lag_records", *place]
        assert found["ingest_owned", *place] == 0
        assert found["ingest_accounted", *place] == 1
        assert found["ingest_delay_seconds", *place] >= 0
        assert found["ingest_last_commit_timestamp_seconds", *place] > 1.7e9
    states = {state: found["ingest_stream_state", "temperature", state] for state in ("healthy", "degraded", "stopped")}
    assert states == {"healthy": 0, "degraded": 1, "stopped": 0}


def test_before_the_stream_has_begun_there_are_ends_only(make_bench: Make) -> None:
    found = scraped(make_bench())
    assert found["ingest_end_offset", "temperature", "0"] == 0
    assert ("ingest_position_offset", "temperature", "0") not in found


@contextmanager
def serving(bench: Bench) -> Iterator[str]:
    """The command as a process; the address it prints."""
    command = [sys.executable, "-m", "ingest_pipeline.cli.main", "metrics", "--port", "0"]
    environ = {**os.environ, **bench.environ}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True, preexec_fn=interruptible)
    assert process.stdout is not None
    address = re.search(r"http://\S+(?=/metrics)", process.stdout.readline())
    assert address is not None
    try:
        yield address[0]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        process.stdout.close()


def test_while_postgres_is_away_only_the_state_is_shown(make_bench: Make) -> None:
    bench = make_bench(DATABASE_URL="postgresql://x@127.0.0.1:9/x")
    found = [line for line in exposed(bench).splitlines() if not line.startswith("#")]
    states = [line for line in found if line.startswith("ingest_stream_state")]
    assert 'ingest_stream_state{state="unknown",stream="temperature"} 1.0' in states
    assert [line for line in found if line not in states] == ['ingest_paused{stream="temperature"} 0.0']


TIMES = {"ticked_at", "owner_since", "committed_at", "newest_at"}


def test_the_status_document_has_the_documented_fields(make_bench: Make) -> None:
    bench = make_bench()
    bench.produce(with_broken(temperatures(20), 7))
    bench.drain()
    bench.tick()
    (stream,) = json.loads(body(bench, "/status"))
    (shown,) = json.loads(ingest(bench, "status", "--json", code=1))
    assert shown == stream
    partition = stream["partitions"][0]
    documented = set(re.findall(r"`(\w+)`", fields_table()))
    assert documented == {*stream, *partition}
    times = {name: value for name, value in {**stream, **partition}.items() if name in TIMES and value is not None}
    assert times.keys() >= {"ticked_at", "committed_at"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", value) for value in times.values())


def fields_table() -> str:
    """The first column of the table of docs/operations.md."""
    text = (ROOT / "docs/operations.md").read_text().split("## The status as JSON")[1].split("\n## ")[0]
    return "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))


def test_alerts_need_a_webhook(make_bench: Make) -> None:
    assert "--alerts needs ALERT_WEBHOOK_URL" in ingest(make_bench(), "metrics", "--alerts", code=1)


def test_served_until_interrupted(make_bench: Make) -> None:
    bench = make_bench()
    with serving(bench) as address:
        with urllib.request.urlopen(f"{address}/metrics") as answer:
            assert 'ingest_stream_state{state="healthy",stream="temperature"}' in answer.read().decode()
        with urllib.request.urlopen(f"{address}/status") as answer:
            assert answer.headers["Content-Type"] == "application/json"
            assert [stream["stream"] for stream in json.load(answer)] == ["temperature", "price"]
        with pytest.raises(HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/other")
        with urllib.request.urlopen(f"{address}/healthz") as answer:
            assert answer.read() == b"ok\n"
        ingest(bench, "pause", "temperature", "--reason", "a test")
        with urllib.request.urlopen(f"{address}/healthz") as answer:
            assert "paused: a test" in answer.read().decode()
        ingest(bench, "resume", "temperature")
        bench.produce(temperatures(4))
        bench.drain()
        ingest(bench, "pause", "temperature", "--reason", "a test")
        with pytest.raises(HTTPError, match="503") as refused:  # the command looks for another topic
            urllib.request.urlopen(f"{address}/healthz")
        message = refused.value.read().decode()
        assert "the topic of its 2 positions is gone" in message and "paused: a test" in message

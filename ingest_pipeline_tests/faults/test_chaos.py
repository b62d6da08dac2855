"""Parts of chaos, and one run on three brokers. CI runs `make chaos`."""

import os
import subprocess
import sys
from collections.abc import Mapping
from itertools import count
from unittest.mock import Mock

import pytest

from ingest_pipeline.cli.progress import LINE_SECONDS
from ingest_pipeline_tests.faults.chaos import Chaos
from ingest_pipeline_tests.faults.chaos_brokers import BROKER_FAULTS, CLUSTER_FAULTS
from ingest_pipeline_tests.faults.chaos_faults import Strike
from ingest_pipeline_tests.faults.chaos_servers import FAULTS, deck
from ingest_pipeline_tests.faults.supervised import ROOT
from ingest_pipeline_tests.servers.broker import RealKafka

SEED = 175
CLUSTER = ["--brokers", "3", "--faults", "4", "--seed", "4"]
CLUSTER += [word for kind in BROKER_FAULTS for word in ("--only", kind)]


@pytest.mark.parametrize("faults", [FAULTS, CLUSTER_FAULTS])
def test_a_deck_holds_every_kind_and_is_the_same_for_a_seed(faults: Mapping[str, tuple[int, Strike]]) -> None:
    whole = sum(share for share, _ in faults.values())
    assert set(deck(1, whole, faults)) == set(faults)
    assert deck(1, 2 * whole, faults)[:50] == deck(1, 50, faults)
    assert deck(1, 50, faults) != deck(2, 50, faults)


def test_a_world_of_one_broker_has_no_faults_of_several() -> None:
    command = [sys.executable, "-m", "ingest_pipeline_tests.faults.chaos", "--only", "elect leaders"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "not with 1 brokers: elect leaders" in refused.stderr


def test_chaos_prints_its_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Chaos, "_fresh_rows", lambda *_: 1.0)
    monkeypatch.setattr(Chaos, "_strike", lambda *_: None)
    Chaos(Mock(), SEED, count(0.0, LINE_SECONDS).__next__)._all(["kill", "freeze"])
    first, last = capsys.readouterr().err.splitlines()
    assert first == "faults: 1 of 2, 0.1/s, 10 s left"
    assert last.startswith("faults: 2 of 2")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_all_holds_after_faults_of_a_cluster(kafka_server: RealKafka) -> None:
    """`kafka_server` only shows that Kafka can run here. Chaos starts its own."""
    command = [sys.executable, "-m", "ingest_pipeline_tests.faults.chaos", *CLUSTER]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as chaos:
        try:
            printed, _ = chaos.communicate()
        finally:
            chaos.terminate()
    print(printed)
    assert chaos.returncode == 0, printed
    assert printed.splitlines()[-1].startswith("HELD: ")

"""What docs/comparison.md asks of every sink, asked of ours: three bad records, and a `kill -9` with a restart."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress

from confluent_kafka import Producer

from ingest_pipeline.cli.progress import progress
from ingest_pipeline_tests.orchestration.bench import wait_for

from .kills import accounted
from .processes import session
from .system import PARTITIONS, TOPICS, System, dagster_dev

_GOOD = {"device_id": "dev-0001", "temperature": 21.5, "timestamp": "2026-01-02T03:04:05.678901+00:00"}
BAD = {
    "a NUL character": json.dumps({**_GOOD, "device_id": "dev\x00"}).encode(),
    "not JSON": b"temperature=21.5",
    "a bad timestamp": json.dumps({**_GOOD, "timestamp": "yesterday"}).encode(),
}


def bad_records(running: System, records: int) -> tuple[int, list[str]]:
    """(rows, reasons of the dead letters) of so many records, of which the three BAD ones stand among the others."""
    topic = TOPICS[0]
    values = [json.dumps(_GOOD).encode()] * records
    for number, value in enumerate(BAD.values(), 1):
        values[number * records // 4] = value
    producer = Producer({"bootstrap.servers": running.bootstrap_servers, "acks": "all"})
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % PARTITIONS)
        producer.poll(0)
    assert producer.flush(60) == 0, "the broker did not take every record"
    with dagster_dev(running, {}):
        _show_drained(running, records)
    rows = int(str(running.query(f"SELECT count(*) FROM {topic}")[0][0]))
    reasons = running.query("SELECT reason FROM ingest.dead_letter ORDER BY kafka_offset, kafka_partition")
    return rows, [str(reason) for (reason,) in reasons]


def killed_and_restarted(running: System, records: int) -> tuple[float, float]:
    """SIGKILL for Dagster and its runs, all at once, when half of these records are drained; then the same command.

    Returns:
        Seconds from the second start until its code is loaded, and until a new row is there.
    """
    before, folder = accounted(running), running.fresh_folder("dagster")
    sent = running.produce(records, broken_every=0).acknowledged
    with dagster_dev(running, {}, folder=folder) as dagster:
        _show_drained(running, before + sent // 2, every=0.02)
        for pid in session(dagster.session):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    left, began = accounted(running), time.monotonic()
    with dagster_dev(running, {}, folder=folder):
        loaded = time.monotonic() - began
        wait_for("a new row", lambda: accounted(running) > left, 120)
        first_row = time.monotonic() - began
        _show_drained(running, before + sent)
    return loaded, first_row


def _show_drained(running: System, records: int, every: float = 0.2) -> None:
    """Until so many records are accounted for."""
    with progress("draining", records) as show:

        def done() -> bool:
            show(reached := accounted(running))
            return reached >= records

        wait_for("the records", done, 600, every=every)

"""The scenarios of docs/comparison.md on this pipeline: three bad records, and a `kill -9` with a restart."""

import json
import os
import signal
import time
from contextlib import suppress

import click
from confluent_kafka import Producer

from ingest_pipeline.cli.progress import progress
from ingest_pipeline_tests.orchestration.bench import wait_for

from . import document
from .effort import Effort
from .kills import accounted, stored
from .processes import session
from .system import PARTITIONS, TOPICS, System, dagster_dev

_GOOD = {"device_id": "dev-0001", "temperature": 21.5, "timestamp": "2026-01-02T03:04:05.678901+00:00"}
BAD = {
    "a NUL character": json.dumps({**_GOOD, "device_id": "dev\x00"}).encode(),
    "not JSON": b"temperature=21.5",
    "a bad timestamp": json.dumps({**_GOOD, "timestamp": "yesterday"}).encode(),
}


def section(running: System, effort: Effort) -> str:
    few, many = effort.of(10_000), effort.of(600_000)
    rows, reasons = bad_records(running, few)
    loaded, first_row = killed_and_restarted(running, many)
    everything, distinct = stored(running)
    lost, twice = few + many - distinct - len(reasons), everything - distinct
    click.echo(f"  {rows:,} rows, {len(reasons)} dead letters, {lost} lost, {twice} twice; {first_row:.1f} s")
    if rows != few - len(BAD) or len(reasons) != len(BAD) or lost or twice:
        raise SystemExit("records were lost or doubled")
    return "The scenarios of [the comparison](comparison.md) on this pipeline, default settings.\n\n" + document.table(
        ["scenario", "result"],
        [
            (f"{few:,} records, among them {', '.join(BAD)}: good rows stored", f"{rows:,}"),
            ("the bad records kept, with the reason", "; ".join(f"`` {reason} ``" for reason in reasons)),
            (f"`kill -9` of Dagster and its runs in the middle of {many:,} records, then a restart: rows doubled", "0"),
            ("the same: records lost", "0"),
            ("first new row after the command that restarts it", f"{first_row:.1f} s"),
            ("of these, until Dagster had loaded the code", f"{loaded:.1f} s"),
        ],
    )


def bad_records(running: System, records: int) -> tuple[int, list[str]]:
    """(rows, reasons of the dead letters) of `records` records, the three BAD ones among them."""
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
    """SIGKILL Dagster and its runs, all at once, when half of the records are drained. Then start Dagster again.

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
    """Return when `records` records are drained."""
    with progress("draining", records) as show:

        def done() -> bool:
            show(reached := accounted(running))
            return reached >= records

        wait_for("the records", done, 600, every=every)

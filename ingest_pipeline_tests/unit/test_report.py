"""What a run reports along the way: never a reason to end it, and never long without a sign of life."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Any

import dagster as dg
import pytest

from ingest_pipeline.core.errors import IngestError, KafkaUnavailable, NotPermitted
from ingest_pipeline.core.progress import Progress
from ingest_pipeline.core.record import NextOffset, Position
from ingest_pipeline.orchestration.run.report import FIRST_REPORT_SECONDS, Reporter
from ingest_pipeline.testing import MemoryBroker, MemoryTopic, SettableClock
from ingest_pipeline_tests.samples import READING


class SilentTopic(MemoryTopic):
    """Raises what it is given instead of telling the ends."""

    def __init__(self, error: IngestError) -> None:
        super().__init__(MemoryBroker({"reading": 1}), "reading")
        self.error = error

    def end_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        raise self.error


def reporter(clock: SettableClock, topic: MemoryTopic, emitted: list[Any], checked: list[str]) -> Reporter:
    def checks() -> Iterator[None]:
        for name in ("first", "second"):
            checked.append(name)
            yield

    return Reporter(
        stream=READING,
        key=dg.AssetKey("reading"),
        event=dg.AssetObservation,
        emit=emitted.append,
        topic=topic,
        clock=clock,
        report_seconds=60.0,
        log=logging.getLogger("test"),
        checks=checks,
        row_count=lambda: None,
    )


@pytest.mark.parametrize("error", [KafkaUnavailable("away"), NotPermitted("a right was taken away")])
def test_a_broker_that_does_not_tell_the_ends_costs_the_lag_alone(error: IngestError) -> None:
    clock, emitted = SettableClock(), list[Any]()
    report = reporter(clock, SilentTopic(error), emitted, [])
    progress = Progress(clock.monotonic(), 1000)
    progress.to_offsets[0] = 5
    clock.advance(61)
    report(progress)
    assert len(emitted) == 1
    assert "lag" not in emitted[0].metadata


def test_checks_are_evaluated_one_at_a_call() -> None:
    clock, checked = SettableClock(), list[str]()
    report = reporter(clock, MemoryTopic(MemoryBroker({"reading": 1}), "reading"), [], checked)
    progress = Progress(clock.monotonic(), 1000)
    seen = []
    for seconds in (30, 31, 1, 1, 1, 57):
        clock.advance(seconds)
        report(progress)
        seen.append(len(checked))
    assert seen == [0, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("first", [True, False])
def test_a_new_stream_reports_soon_after_its_first_commit(first: bool) -> None:
    clock, emitted, checked = SettableClock(), list[Any](), list[str]()
    report = reporter(clock, MemoryTopic(MemoryBroker({"reading": 1}), "reading"), emitted, checked)
    report.restart(first=first)
    progress = Progress(clock.monotonic(), 1000)
    clock.advance(20)
    report(progress)
    progress.batches = 1
    seen = []
    for seconds in (0, FIRST_REPORT_SECONDS, 1, FIRST_REPORT_SECONDS, 60, 1):
        clock.advance(seconds)
        report(progress)
        seen.append((len(emitted), len(checked)))
    assert seen == (
        [(0, 0), (1, 1), (1, 2), (1, 2), (2, 3), (2, 4)] if first else [(0, 0), (0, 0), (0, 0), (0, 0), (1, 1), (1, 2)]
    )


def test_offsets_follow_a_topic_created_again_with_fewer_partitions() -> None:
    progress = Progress(0.0, 10)
    progress.own({0: Position(0, 1, NextOffset(5)), 1: Position(1, 1, NextOffset(9))})
    progress.own({0: Position(0, 2, NextOffset(0))})
    assert progress.from_offsets == progress.to_offsets == {0: 0}

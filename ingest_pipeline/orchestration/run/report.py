"""Reports a run's progress as metadata, log lines and observations. Numeric keys never change their name or unit."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

import dagster as dg

from ...core.background import Background
from ...core.errors import IngestError
from ...core.ledger import Holder
from ...core.ports import Clock, Topic
from ...core.progress import Progress
from ...core.record import NextOffset
from ...core.start import unanswered_words
from ...core.stream import Stream
from ...operations.stream_context import StreamContext
from .picture import picture

LOGGED = ("batches", "rows", "dead_letters", "skipped_records", "absent_offsets")
"""Counts since the previous line, named as the metrics without `ingest_` and `_total`."""
FIRST_REPORT_SECONDS = 3.0
"""Time from a new stream's first commit to its first report, in a run of one stream."""
_PERCENTILES = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}


class Reporter:
    """Called after every batch and every read without records. Logs the commits, and emits an event every
    REPORT_SECONDS.

    Args:
        emit: takes an AssetObservation or AssetMaterialization, as `Journal.event` does.
        event: the class of the emitted event.
        log: for the batch lines. A stdlib logger keeps the lines out of Dagster's event log.
        row_count: rows of the table by the ledger's counters, or None if the ledger does not answer.
        log_seconds: minimum interval of the stream's log lines.
        first_report_seconds: time from a new stream's first commit to its first report.
        background: asks for the lag of an event. The drain does not wait for a silent leader.
    """

    def __init__(
        self,
        *,
        stream: Stream,
        key: dg.AssetKey,
        event: type[dg.AssetObservation] | type[dg.AssetMaterialization],
        emit: Callable[[Any], None],
        topic: Topic,
        clock: Clock,
        report_seconds: float,
        log: logging.Logger,
        row_count: Callable[[], int | None],
        log_seconds: float,
        first_report_seconds: float,
        background: Background,
    ) -> None:
        self._stream, self._key, self._event, self._emit = stream, key, event, emit
        self._topic, self._clock, self._log = topic, clock, log
        self._row_count, self._background = row_count, background
        self._ends: Future[dict[int, NextOffset]] | None = None
        self._unwritten = "superseded" if stream.key else "dropped_by_trigger"
        self._report_seconds, self._first_report_seconds = report_seconds, first_report_seconds
        self._report_at = clock.monotonic() + report_seconds
        self._logged, self._log_seconds, self._log_at = (0,) * len(LOGGED), log_seconds, clock.monotonic()
        self._dropped = 0
        self._first = False

    def restart(self, *, first: bool) -> None:
        """Count the interval of the events from now. A check that a run evaluates before its predecessor's
        materialization is out of date for Dagster until the run ends.

        Args:
            first: no run has moved the stream's positions yet. The first report follows the first commit.
        """
        self._first = first
        self._report_at = self._clock.monotonic() + self._report_seconds

    def __call__(self, progress: Progress) -> None:
        now = self._clock.monotonic()
        if now >= self._log_at:
            self._log_at = now + self._log_seconds
            self.log(progress)
        if self._first and (progress.batches or progress.absent):
            self._first, self._report_at = False, min(self._report_at, now + self._first_report_seconds)
        if now >= self._report_at:
            self._report_at = now + self._report_seconds
            self._ends = self._background(partial(self._topic.end_offsets, list(progress.to_offsets)))
        if self._ends is not None and self._ends.done():
            lag, self._ends = self._lag(progress.to_offsets, self._ends.result), None
            self._emit(self._event(asset_key=self._key, metadata=self._metadata(progress, lag)))

    def log(self, progress: Progress) -> None:
        """Log the commits since the last line, if any."""
        seen = (progress.batches, progress.rows, progress.dead_letters, progress.skipped, progress.absent)
        if seen == self._logged:
            return
        dropped, self._dropped = progress.dropped - self._dropped, progress.dropped
        counts = (new - old for new, old in zip(seen, self._logged, strict=True))
        self._logged = seen
        fields = {
            "stream": self._stream.name,
            **dict(zip(LOGGED, counts, strict=True)),
            **({self._unwritten: dropped} if dropped else {}),
            "position_offset": dict(sorted(progress.to_offsets.items())),
        }
        self._log.info("committed", extra={"fields": fields})

    def metadata(self, progress: Progress, ended: str) -> dict[str, Any]:
        """The metadata of the materialization. `ended` is the end reason of the run."""
        positions = progress.to_offsets
        lag = self._lag(positions, partial(self._topic.end_offsets, list(positions)))
        return self._metadata(progress, lag) | {"ended": str(ended)}

    def _metadata(self, progress: Progress, lag: int | None) -> dict[str, Any]:
        seconds = max(self._clock.monotonic() - progress.started_at, 1e-9)
        percentiles = {name: progress.latency.percentile_ms(share) for name, share in _PERCENTILES.items()}
        counts: dict[str, Any] = {
            "rows": progress.rows,
            "batches": progress.batches,
            "dead_letters": progress.dead_letters,
            "skipped": progress.skipped,
            self._unwritten: progress.dropped or None,
            "absent": progress.absent,
            "rows_per_second": round(progress.rows / seconds, 1),
            "mean_batch_rows": round(progress.rows / progress.batches, 1) if progress.batches else None,
            "seconds": round(seconds, 3),
            **{name: None if value is None else round(value, 1) for name, value in percentiles.items()},
            "latency_max_ms": round(progress.latency.maximum_ms, 1) if progress.latency.maximum_ms else None,
            "decode_share": round(progress.decode_seconds / seconds, 4),
            "database_share": round(progress.database_seconds / seconds, 4),
            "lag": lag,
            "dagster/row_count": self._row_count(),
        }
        metadata = {name: value for name, value in counts.items() if value is not None}
        if progress.from_offsets:
            metadata["offsets"] = _offsets(progress)
        if progress.reasons:
            top = progress.reasons.most_common(3)
            metadata["dead_letter_reasons"] = dg.MetadataValue.md(
                "\n".join(f"- {count:,}x {why}" for why, count in top)
            )
        if (drawn := picture(progress.history)) is not None:
            metadata["over_time"] = drawn
        return metadata

    def _lag(self, positions: Mapping[int, int], end_offsets: Callable[[], Mapping[int, NextOffset]]) -> int | None:
        """Records between the positions and the ends. None if Kafka or a partition's leader does not answer, or if the
        topic is missing: a report never ends a run."""
        if not positions:
            return None
        try:
            ends = end_offsets()
        except IngestError as error:
            self._log.warning("lag is not known: %s", error)
            return None
        if silent := positions.keys() - ends.keys():
            self._log.warning("lag is not known: %s", unanswered_words(silent))
            return None
        return sum(max(0, ends[partition].next_offset - position) for partition, position in positions.items())


def _offsets(progress: Progress) -> dg.MetadataValue[Any]:
    records = [
        dg.TableRecord({"partition": partition, "from": start, "to": progress.to_offsets[partition]})
        for partition, start in sorted(progress.from_offsets.items())
    ]
    columns = [dg.TableColumn(name, "int") for name in ("partition", "from", "to")]
    return dg.MetadataValue.table(records=records, schema=dg.TableSchema(columns=columns))


def known_row_count(stream_context: StreamContext, log: logging.Logger) -> int | None:
    """Rows of the table by the ledger's counters. None for a stream with `many` or a key, whose counters count records.
    None without an answer of the ledger, too: the drain reports the error."""
    if stream_context.stream.many or stream_context.stream.key:
        return None
    try:
        return stream_context.ledger.row_count()
    except IngestError as error:
        log.warning("the row count is not known: %s", error.message)
        return None


def owners_metadata(owners: Mapping[int, Holder]) -> dict[str, str]:
    """The partitions that a run by hand left to their owners."""
    if not owners:
        return {}
    names = [f"partition {partition}: run {holder.run_id[:8]}" for partition, holder in sorted(owners.items())]
    return {"drained_by_others": ", ".join(names)}

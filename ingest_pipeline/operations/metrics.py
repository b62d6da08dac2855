"""Every stream's position and health over HTTP. A request asks ledger and brokers, so no run has to be alive."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import make_wsgi_app
from prometheus_client.registry import Collector

from .judgement import StreamStatus
from .levels import Level
from .status import SensorReasons, document, statuses
from .stream_context import StreamContext

_PARTITION = ("stream", "partition")
# name, meaning, attribute of PartitionStatus. None as value leaves the partition out.
_GAUGES = (
    ("ingest_position_offset", "Next offset to be stored.", "next_offset"),
    ("ingest_end_offset", "Next offset that a producer will write.", "end"),
    ("ingest_lag_records", "Offsets between position and end.", "lag"),
    ("ingest_delay_seconds", "How long the next record has waited while the position did not move.", "delay"),
    ("ingest_accounted", "1 when every offset is a row, a dead letter or a known hole.", "accounted"),
    ("ingest_owned", "1 while a run owns the partition.", "owned"),
    ("ingest_owner_session_start_timestamp_seconds", "When the owner's session began, in Unix time.", "owner_since"),
    ("ingest_last_commit_timestamp_seconds", "When the position moved last, in Unix time.", "committed_at"),
)
_COUNTERS = (
    ("ingest_rows", "Rows stored.", "rows"),
    ("ingest_dead_letters", "Records refused.", "dead_letters"),
    ("ingest_skipped_records", "Records without a value, and rows that a trigger dropped.", "skipped"),
    ("ingest_absent_offsets", "Offsets that the log does not hold: markers, compaction.", "absent"),
    ("ingest_lost_offsets", "Offsets given up by accept-loss.", "lost"),
)
Samples = Iterable[tuple[Sequence[str], float | datetime | None]]


class StreamCollector(Collector):
    """Asks ledger and brokers at every scrape. Figures without an answer are left out: without Kafka the ledger's
    figures remain, without PostgreSQL the state."""

    def __init__(self, contexts: Iterable[StreamContext]) -> None:
        self._contexts = list(contexts)

    def collect(self) -> Iterator[Metric]:
        streams = statuses(self._contexts)
        partitions = [((stream.stream, str(row.partition)), row) for stream in streams for row in stream.partitions]
        yield _filled(
            GaugeMetricFamily("ingest_stream_state", "1 for the state it is in.", labels=("stream", "state")),
            (((stream.stream, level.label), level == stream.level) for stream in streams for level in Level),
        )
        meaning = "1 while it stands still because somebody paused it, and for no other reason."
        yield _filled(
            GaugeMetricFamily("ingest_paused", meaning, labels=("stream",)),
            (((stream.stream,), stream.paused) for stream in streams),
        )
        meaning = "When the stream's sensor last looked, to the minute, in Unix time."
        yield _filled(
            GaugeMetricFamily("ingest_sensor_last_tick_timestamp_seconds", meaning, labels=("stream",)),
            (((stream.stream,), stream.ticked_at) for stream in streams),
        )
        meaning = "Dead letters that wait for somebody, by the stage that refused them and the class of the SQLSTATE."
        yield _filled(
            GaugeMetricFamily("ingest_open_dead_letters", meaning, labels=(*_PARTITION, "stage", "sqlstate_class")),
            (
                ((*labels, letters.stage, letters.sqlstate_class), letters.letters)
                for labels, row in partitions
                for letters in row.refused or ()
            ),
        )
        for kind, families in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, meaning, attribute in families:
                samples = ((labels, getattr(row, attribute)) for labels, row in partitions)
                yield _filled(kind(name, meaning, labels=_PARTITION), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples) -> Metric:
    for labels, number in samples:
        if number is not None:
            family.add_metric(labels, number.timestamp() if isinstance(number, datetime) else float(number))
    return family


def application(contexts: Iterable[StreamContext], sensor_reasons: SensorReasons | None = None) -> WSGIApplication:
    """`/metrics`, `/status` and `/healthz`. The last one answers with the reasons and

    - 503 when a stream is stopped without being paused,
    - else 504 when a stream's state is unknown,
    - else 200.

    No session with PostgreSQL stays open between two requests. A kept session would hide that no new session is free.
    """
    contexts = list(contexts)
    registry = CollectorRegistry()
    registry.register(StreamCollector(contexts))
    metrics: WSGIApplication = make_wsgi_app(registry)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        try:
            if path == "/metrics":
                return metrics(environ, start_response)
            if path == "/status":
                body = document(statuses(contexts, True, sensor_reasons))
                return respond(start_response, "200 OK", body, "application/json")
            if path == "/healthz":
                return respond(start_response, *_health(statuses(contexts, sensor_reasons=sensor_reasons)))
        finally:
            for context in contexts:
                context.clients.release_idle()
        return respond(start_response, "404 Not Found", "this server has /metrics, /status and /healthz\n")

    return answer


def respond(
    start_response: StartResponse, status: str, body: str, content_type: str = "text/plain; charset=utf-8"
) -> list[bytes]:
    start_response(status, [("Content-Type", content_type)])
    return [body.encode()]


def _health(streams: Sequence[StreamStatus]) -> tuple[str, str]:
    """(status line, body) of /healthz."""
    ill = [stream for stream in streams if stream.level in (Level.STOPPED, Level.UNKNOWN)]
    status = "200 OK"
    if any(stream.level == Level.UNKNOWN for stream in ill):
        status = "504 Gateway Timeout"
    if any(stream.level == Level.STOPPED and not stream.paused for stream in ill):
        status = "503 Service Unavailable"
    lines = [f"{stream.stream}: {message}\n" for stream in ill for message in stream.messages]
    return status, "".join(lines) or "ok\n"

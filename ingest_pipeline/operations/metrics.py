"""Where every stream stands, for Prometheus: read from ledger and broker at each scrape, so that no run has to live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import make_wsgi_app
from prometheus_client.registry import Collector

from ..core.stream import Stream
from .clients import Clients
from .levels import LEVELS, STOPPED, UNKNOWN
from .partition_status import PartitionStatus
from .status import StreamStatus, status_of

_PARTITION = ("stream", "partition")


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


# name, what it is, and its value; a stream without one is left out
_OF_STREAMS: list[tuple[str, str, Callable[[StreamStatus], float | None]]] = [
    (
        "ingest_paused",
        "1 while it stands still because somebody paused it, and for no other reason.",
        lambda stream: stream.paused,
    ),
    (
        "ingest_sensor_last_tick_timestamp_seconds",
        "When the stream's sensor last looked, to the minute, in Unix time.",
        lambda stream: _seconds(stream.ticked_at),
    ),
]
# name, what it is, whether it only grows, and its value; a partition without one is left out
_OF_PARTITIONS: list[tuple[str, str, bool, Callable[[PartitionStatus], float | None]]] = [
    ("ingest_position_offset", "Next offset to be stored.", False, lambda at: at.next_offset),
    ("ingest_end_offset", "Next offset that a producer will write.", False, lambda at: at.end),
    ("ingest_lag_records", "Offsets between position and end.", False, lambda at: at.lag),
    (
        "ingest_delay_seconds",
        "How long the next record has waited while the position did not move.",
        False,
        lambda at: at.delay,
    ),
    ("ingest_rows", "Rows stored.", True, lambda at: at.rows),
    ("ingest_dead_letters", "Records refused.", True, lambda at: at.dead_letters),
    (
        "ingest_skipped_records",
        "Records without a value, and rows that a trigger dropped.",
        True,
        lambda at: at.skipped,
    ),
    ("ingest_absent_offsets", "Offsets that the log does not hold: markers, compaction.", True, lambda at: at.absent),
    ("ingest_lost_offsets", "Offsets given up by accept-loss.", True, lambda at: at.lost),
    (
        "ingest_accounted",
        "1 when every offset is a row, a dead letter or a known hole.",
        False,
        lambda at: at.accounted,
    ),
    ("ingest_owned", "1 while a run owns the partition.", False, lambda at: at.owner is not None),
    (
        "ingest_owner_session_start_timestamp_seconds",
        "When the session began that owns the partition, in Unix time.",
        False,
        lambda at: _seconds(at.owner_since),
    ),
    (
        "ingest_last_commit_timestamp_seconds",
        "When the position moved last, in Unix time.",
        False,
        lambda at: _seconds(at.committed_at),
    ),
]


class StreamCollector(Collector):
    """Asks ledger and broker at each scrape. Where Kafka does not answer, a stream has state "stopped", and what the
    ledger says without ends, lag and delay; where PostgreSQL does not, the state alone. A question that PostgreSQL did
    not answer in time makes the state "unknown", and what depends on the answer is left out."""

    def __init__(self, streams: Iterable[Stream], clients: Clients) -> None:
        self._streams, self._clients = list(streams), clients

    def collect(self) -> Iterator[Metric]:
        found = [status_of(stream, self._clients) for stream in self._streams]
        yield self._states(found)
        for name, meaning, of_stream in _OF_STREAMS:
            gauge = GaugeMetricFamily(name, meaning, labels=("stream",))
            for each in found:
                if (number := of_stream(each)) is not None:
                    gauge.add_metric([each.stream], float(number))
            yield gauge
        yield self._open_letters(found)
        for name, meaning, grows, value in _OF_PARTITIONS:
            family = (CounterMetricFamily if grows else GaugeMetricFamily)(name, meaning, labels=_PARTITION)
            for each in found:
                for at in each.partitions:
                    if (number := value(at)) is not None:
                        family.add_metric([each.stream, str(at.partition)], float(number))
            yield family

    def _states(self, found: list[StreamStatus]) -> Metric:
        family = GaugeMetricFamily("ingest_stream_state", "1 for the state it is in.", labels=("stream", "state"))
        for each in found:
            for level, state in enumerate(LEVELS):
                family.add_metric([each.stream, state], float(level == each.level))
        return family

    def _open_letters(self, found: list[StreamStatus]) -> Metric:
        family = GaugeMetricFamily(
            "ingest_open_dead_letters",
            "Dead letters that wait for somebody, by the stage that refused them and the class of the SQLSTATE.",
            labels=(*_PARTITION, "stage", "sqlstate_class"),
        )
        for each in found:
            for at in each.partitions:
                for of in at.refused or ():
                    family.add_metric([each.stream, str(at.partition), of.stage, of.sqlstate_class], of.letters)
        return family


def application(streams: Iterable[Stream], clients: Clients) -> WSGIApplication:
    """`/metrics` and `/healthz`. The latter answers 503 with the reasons when a stream that is not paused stands still,
    else 504 when the ledger did not answer in time, else 200."""
    streams = list(streams)
    registry = CollectorRegistry()
    registry.register(StreamCollector(streams, clients))
    metrics: WSGIApplication = make_wsgi_app(registry)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        if path != "/healthz":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"here are /metrics and /healthz\n"]
        stands = [status_of(one, clients) for one in streams]
        code = "200 OK"
        if any(each.level == UNKNOWN for each in stands):
            code = "504 Gateway Timeout"
        if any(each.level == STOPPED and not each.paused for each in stands):
            code = "503 Service Unavailable"
        start_response(code, [("Content-Type", "text/plain")])
        told = [each for each in stands if each.level in (STOPPED, UNKNOWN)]
        lines = [f"{each.stream}: {said}" for each in told for said in each.said] or ["ok"]
        return ["\n".join([*lines, ""]).encode()]

    return answer

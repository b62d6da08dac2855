"""The two processes that post alerts, and what happens to them."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import psycopg

from ingest_pipeline.operations.alerts import ANSWER_SECONDS, Alerts, Memory
from ingest_pipeline.orchestration.sensor.alerts import alert_sensor
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.records import temperatures
from ingest_pipeline_tests.orchestration.webhook import Webhook

IS_STOPPED, IS_WELL = "temperature is stopped: the last run failed", "temperature is well again"


class Ticks:
    """The sensor of a bench, its cursor kept from tick to tick."""

    def __init__(self, bench: Bench, address: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._here, self.cursor = bench, None
        self._sensor = alert_sensor(bench.contexts, address, answer_seconds)

    def __call__(self, after_seconds: float = 0.0) -> str:
        """A tick so much later; what it says."""
        self._here.clock.seconds += after_seconds
        context = dg.build_sensor_context(instance=self._here.instance, cursor=self.cursor)
        outcome = self._sensor.evaluate_tick(context)
        self.cursor = context.cursor
        return str(outcome.skip_message)


class Metrics:
    """`ingest metrics --alerts` of the same streams."""

    def __init__(self, bench: Bench, address: str) -> None:
        self._alerts = Alerts(bench.contexts, address, name="metrics", by_default=False)
        self._memory = Memory()

    refusal: str | None = None

    def __call__(self) -> int:
        look = self._alerts.look(self._memory)
        self.refusal = look.refusal
        return look.messages


def failing(bench: Bench, message: str = "disk full") -> None:
    """A run failed, and records wait."""
    ledger = bench.clients.ledger(bench.stream)
    ledger.prepare()
    bench.produce(temperatures(4))
    ledger.note_failure(message, True)


def first_lines(webhook: Webhook) -> list[str]:
    return [text.splitlines()[0].split(", 20")[0] for text in webhook.texts]


@contextmanager
def database_away(bench: Bench) -> Iterator[None]:
    """PostgreSQL takes no session of the bench's database, and has ended the open ones."""
    (name,) = bench.query("select current_database()")
    with psycopg.connect(bench.url.replace(f"/{name}", "/postgres"), autocommit=True) as server:
        server.execute(f'alter database "{name}" allow_connections false')
        server.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
        yield
        server.execute(f'alter database "{name}" allow_connections true')

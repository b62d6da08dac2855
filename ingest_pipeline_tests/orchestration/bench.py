"""One code location in this process, on its own topics, database and Dagster instance."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dagster as dg
import psycopg
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.execution.execute_in_process_result import ExecuteInProcessResult

from ingest_pipeline.core.clock import SystemClock
from ingest_pipeline.core.ports import Clock
from ingest_pipeline.core.roles import Role
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.checks import CheckResult
from ingest_pipeline.orchestration.job_checks import check_results
from ingest_pipeline.settings import Settings
from ingest_pipeline_tests.orchestration.records import Record, produce
from ingest_pipeline_tests.servers.postgres_roles import url_of

WAIT_SECONDS = 180.0


def wait_for(what: str, condition: Callable[[], Any], seconds: float = WAIT_SECONDS, every: float | None = None) -> Any:
    """The condition's first true value. Fails with `what` when there is none in time.

    Without `every` a longer wait has longer pauses, up to a quarter of a second. A look may take a new connection.
    """
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        assert waited < seconds, f"waited {seconds:g} s in vain for {what}"
        time.sleep(every or min(max(0.05, waited / 20), 0.25))
    return value


def query(url: str, statement: str, *values: Any) -> list[Any]:
    """Rows as tuples; rows of one column as that column. Commits."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, values or None)
        rows = cursor.fetchall() if cursor.description else []
    return [row[0] if len(row) == 1 else row for row in rows]


class AheadClock(SystemClock):
    """The machine's clock, `seconds` ahead."""

    seconds = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.seconds

    def time(self) -> float:
        return super().time() + self.seconds


class ChangedClients(Clients):
    """Clients whose topics, sessions, stores and decoders get a test's methods.

    Attributes:
        changes: maker of a client → method → function. The function is called with the client's own method first.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        super().__init__(settings, clock)
        self.changes: defaultdict[str, dict[str, Callable[..., Any]]] = defaultdict(dict)

    def topic(self, *arguments: Any, **options: Any) -> Any:
        return self._changed("topic", super().topic(*arguments, **options))

    def topics(self, *arguments: Any, **options: Any) -> Any:
        return self._changed("topics", super().topics(*arguments, **options))

    def ledger_session(self, *arguments: Any, **options: Any) -> Any:
        return self._changed("ledger_session", super().ledger_session(*arguments, **options))

    def missing_rows(self, *arguments: Any) -> Any:
        return self._changed("missing_rows", super().missing_rows(*arguments))

    def decoder(self, *arguments: Any) -> Any:
        return self._changed("decoder", super().decoder(*arguments))

    def _changed(self, maker: str, client: Any) -> Any:
        for name, function in self.changes[maker].items():
            setattr(client, name, partial(function, getattr(client, name)))
        return client


@dataclass
class Bench:
    """The first stream is meant where none is named.

    Attributes:
        url: of the database, for the test's own questions. The pipeline's DATABASE_URL may have fewer rights.
    """

    streams: Sequence[Stream]
    environ: Mapping[str, str]
    url: str
    settings: Settings
    clients: ChangedClients
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    clock: AheadClock
    cursors: dict[str, str | None] = field(default_factory=dict)

    @property
    def stream(self) -> Stream:
        return self.streams[0]

    @property
    def contexts(self) -> list[StreamContext]:
        return [StreamContext(stream, self.clients) for stream in self.streams]

    @property
    def context(self) -> StreamContext:
        return self.contexts[0]

    def check_results(self) -> dict[str, CheckResult]:
        """Check → its result now, for the first stream."""
        return {result.name: result for result in check_results([self.context])[self.context.stream.name]}

    @property
    def bootstrap_servers(self) -> str:
        return self.environ["KAFKA_BOOTSTRAP_SERVERS"]

    def operator_environ(self) -> Mapping[str, str]:
        """The settings of a person who types commands: an operator where the pipeline is a writer."""
        if self.environ["DATABASE_URL"] != url_of(self.url, Role.WRITER):
            return self.environ
        return {**self.environ, "DATABASE_URL": url_of(self.url, Role.OPERATOR)}

    def produce(self, records: Iterable[Record], stream: Stream | None = None) -> None:
        produce(self.bootstrap_servers, (stream or self.stream).topic, records)

    def query(self, statement: str, *values: Any) -> list[Any]:
        return query(self.url, statement, *values)

    def rows(self, stream: Stream | None = None) -> int:
        (count,) = self.query(f'select count(*) from "{(stream or self.stream).table}"')
        return int(count)

    def positions(self, stream: Stream | None = None) -> dict[int, int]:
        """Partition → next offset."""
        name = (stream or self.stream).name
        return dict(self.query("select kafka_partition, next_offset from ingest.position where stream = %s", name))

    def by_hand(self, *streams: Stream) -> ExecuteInProcessResult:
        """Materialize these, all when none is named, as the button does: no tags, one process."""
        keys = [dg.AssetKey(stream.name) for stream in streams or self.streams]
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(instance=self.instance, asset_selection=keys, raise_on_error=False)

    def by_sensor(self, shard: str = "0/1", **more: str) -> ExecuteInProcessResult:
        """The stream's job with the tags that a sensor gives."""
        found = {tags.STREAM: self.stream.name, tags.SHARD: shard, **more}
        job = self.definitions.resolve_job_def(tags.job_name(self.stream.job))
        return job.execute_in_process(instance=self.instance, tags=found, raise_on_error=False)

    def drain(self, shard: str = "0/1") -> str:
        """A sensor's run that succeeds; its id."""
        result = self.by_sensor(shard)
        assert result.success, failure(result)
        return str(result.run_id)

    def tick(self) -> SensorExecutionData:
        """One tick of the stream's sensor, with the cursor that its last one left."""
        name = tags.sensor_name(self.stream.job)
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursors.get(name))
        outcome = self.definitions.resolve_sensor_def(name).evaluate_tick(context)
        self.cursors[name] = outcome.cursor
        return outcome

    def run_tags(self, run_id: str) -> Mapping[str, str]:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.tags

    def outcome(self, run_id: str) -> tuple[str | None, str | None]:
        """(ingest/ended, ingest/rows) of a sensor's run."""
        found = self.run_tags(run_id)
        return found.get(tags.ENDED), found.get(tags.ROWS)

    def said(self, run_id: str) -> str:
        """Every message of the run in Dagster's event log."""
        return "\n".join(entry.user_message or entry.message for entry in self.instance.all_logs(run_id))


def metadata(result: ExecuteInProcessResult, stream: Stream) -> dict[str, Any]:
    """Of the stream's one materialization: name → plain value."""
    (event,) = [
        event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey(stream.name)
    ]
    return {
        name: [dict(record.data) for record in value.records]
        if isinstance(value, dg.TableMetadataValue)
        else value.value
        for name, value in event.materialization.metadata.items()
    }


def failure(result: ExecuteInProcessResult) -> str:
    """What the run's one failed step says."""
    (event,) = result.get_step_failure_events()
    data = event.step_failure_data
    assert data.user_failure_data is not None
    return str(data.user_failure_data.description)

"""`ingest check`: what works, and what to do about what does not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator

from ..core.errors import IngestError
from ..core.stream import Stream
from .connections import Connections
from .doctor_kafka import kafka_findings
from .finding import Finding


def findings(connections: Connections, streams: Sequence[Stream]) -> Iterator[Finding]:
    """Kafka, PostgreSQL, then Dagster; each yielded as it is known."""
    for stream in streams:
        yield from kafka_findings(connections, stream)
    yield from _postgres(connections, streams)
    yield from _dagster(connections, streams)


def _postgres(connections: Connections, streams: Sequence[Stream]) -> Iterator[Finding]:
    from ..postgres import catalog, comparison, rights, schema, server_checks

    database = connections.database()
    what = f"PostgreSQL at {database.where}"
    try:
        with database.connect("asking for the version") as connection:
            number, name = rights.server_version(connection)
            version = schema.ledger_version(connection, database.schemas.ledger)
            creates = rights.may_create(connection, database.schemas)
            if number < rights.MINIMUM_VERSION:
                yield Finding(False, what, f"version {name}, and 14 or newer is needed")
            else:
                yield Finding(True, what, f"version {name}")
            yield _ledger(version, schema.LEDGER_VERSION, creates, database.schemas.ledger)
            if version == schema.LEDGER_VERSION:
                for difference in catalog.ledger_differences(connection, database.schemas):
                    yield Finding(False, f"ledger {database.schemas.ledger}", difference)
            for stream in streams:
                exists = comparison.has_table(connection, stream, database.schemas.events)
                wrong = comparison.table_differences(connection, stream, database.schemas.events)
                remarks = [] if wrong else comparison.table_remarks(connection, stream, database.schemas.events)
                yield _table(stream, wrong, remarks, may_come=creates and not exists)
                if version is not None and (grants := rights.missing_rights(connection, stream, database.schemas)):
                    yield Finding(False, f"rights for {stream.name}", "; ".join(grants))
        for subject, problem in server_checks.problems(database):
            yield Finding(False, f"PostgreSQL: {subject}", problem)
    except IngestError as error:
        yield Finding(False, what, error.message)


def _ledger(version: str | None, wanted: str, creates: bool, schema: str) -> Finding:
    what = f"ledger {schema}"
    if version == wanted:
        return Finding(True, what, f"version {version}")
    if version is None and creates:
        return Finding(True, what, "does not exist yet. The first run creates it")
    needed = f"version {version or 'none'}, and this code needs {wanted}"
    return Finding(False, what, f"{needed}: run `ingest migrate` as a role that may create schemas and tables")


def _table(stream: Stream, differences: list[str], remarks: list[str], may_come: bool) -> Finding:
    from ..postgres import comparison

    what = f"table of {stream.name}"
    if may_come:
        return Finding(True, what, "does not exist yet. The first run creates it")
    if differences:
        return Finding(False, what, comparison.in_words(differences))
    return Finding(True, what, "; ".join(["as declared", *remarks]))


def _dagster(connections: Connections, streams: Sequence[Stream]) -> Iterator[Finding]:
    folder = os.environ.get("DAGSTER_HOME") or str(Path.cwd())
    what = f"Dagster instance of {'DAGSTER_HOME' if 'DAGSTER_HOME' in os.environ else 'this folder'}"
    if not (Path(folder) / "dagster.yaml").is_file():
        yield Finding(False, what, "no dagster.yaml there; run in the clone, or copy its dagster.yaml to DAGSTER_HOME")
        return
    try:
        with dg.DagsterInstance.from_config(folder) as instance:
            parts = (instance.run_coordinator, instance.run_launcher, instance.compute_log_manager)
            yield Finding(True, what, ", ".join(type(part).__name__ for part in parts))
            yield _run_limit(instance, connections, streams)
            yield _switch("run monitoring", instance.run_monitoring_enabled, "set run_monitoring: {enabled: true}")
            threads = bool(instance.get_settings("sensors").get("use_threads"))
            yield _switch("sensor threads", threads, "set sensors: {use_threads: true}, or one slow tick holds up all")
    except (dg.DagsterError, ImportError, OSError) as error:
        yield Finding(False, what, f"dagster.yaml cannot be used: {str(error).splitlines()[0]}")


def _run_limit(instance: dg.DagsterInstance, connections: Connections, streams: Sequence[Stream]) -> Finding:
    shards = sum(connections.settings.for_stream(stream.name).parallelism for stream in streams)
    needed = 2 * shards + 10
    coordinator = instance.run_coordinator
    limit = (
        coordinator.get_run_queue_config().max_concurrent_runs if isinstance(coordinator, QueuedRunCoordinator) else -1
    )
    if limit < 0 or limit >= needed:
        return Finding(True, "max_concurrent_runs", "no limit" if limit < 0 else f"{limit}, {needed} needed")
    return Finding(False, "max_concurrent_runs", f"is {limit}; {shards} shards need {needed}: raise it in dagster.yaml")


def _switch(what: str, on: bool, otherwise: str) -> Finding:
    return Finding(on, what, "on" if on else otherwise)

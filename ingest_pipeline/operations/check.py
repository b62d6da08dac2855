"""`ingest check`: whether the servers work and suffice, with a remedy for every fault."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.errors import IngestError
from ..core.formats import Avro
from ..core.roles import Role
from ..core.stream import Stream
from ..core.streams import jobs_of, tables_of
from ..settings import Settings
from .check_kafka import kafka_findings
from .clients import Clients
from .finding import Finding
from .stream_context import StreamContext

if TYPE_CHECKING:
    from ..postgres.database import Database


def findings(clients: Clients, streams: Sequence[Stream]) -> Iterator[Finding]:
    """Kafka's lines, the schema registry's and PostgreSQL's, as soon as each server answers."""
    for stream in streams:
        yield from kafka_findings(StreamContext(stream, clients))
    if any(isinstance(stream.format, Avro) for stream in streams):
        yield _schema_registry(clients)
    yield from _postgres(clients, streams)


def _schema_registry(clients: Clients) -> Finding:
    what = "schema registry"
    try:
        return Finding(True, what, f"answers, and has {clients.schema_registry().check()} subjects")
    except IngestError as error:
        return Finding(False, what, error.message)


def _postgres(clients: Clients, streams: Sequence[Stream]) -> Iterator[Finding]:
    from ..postgres import rights, server_checks

    database = clients.database()
    what = f"PostgreSQL at {database.where}"
    try:
        with database.connect("asking for the version") as connection:
            number, name = rights.server_version(connection)
            limit = server_checks.session_limit(connection)
            may_look = rights.may_look(connection, database.schemas, streams)
        if number < rights.MINIMUM_VERSION:
            yield Finding(False, what, f"version {name}, and 14 or newer is needed")
        else:
            yield Finding(True, what, f"version {name}")
        yield _rights(clients, streams)
        if may_look:
            yield from _tables(database, streams)
        yield from capacity_findings(clients.settings, streams, limit)
        for subject, problem in server_checks.problems(database):
            yield Finding(False, f"PostgreSQL: {subject}", problem)
    except IngestError as error:
        yield Finding(False, what, error.message)


def _rights(clients: Clients, streams: Sequence[Stream]) -> Finding:
    """Dagster's runs need a writer's rights. An operator's are needed where commands and the UI's jobs run."""
    from ..postgres import rights

    database, what = clients.database(), "rights in PostgreSQL"
    missing = partial(rights.missing_rights, streams=streams, schemas=database.schemas)
    writes: dict[str, Any] = {"role": Role.WRITER, "accepts_losses": clients.settings.accepts_losses}
    with database.connect("asking for the role's rights") as connection:
        grants = existing = missing(connection, **writes)
        if not rights.may_create(connection, database.schemas, streams):
            grants = missing(connection, absent_too=True, **writes)
        for_operators = missing(connection)
    if grants:
        when = "" if grants == existing else ", after `ingest migrate`"
        lines = "".join(f"\n{grant};" for grant in grants)
        return Finding(False, what, f"let the tables' owner run these lines{when}:{lines}")
    if for_operators:
        return Finding(
            True,
            what,
            "enough for runs, sensors and maintenance. Redrive, discard, replay and accept-loss need more:"
            " `ingest grants --role operator`",
        )
    return Finding(True, what, "enough for every run and command")


def _tables(database: Database, streams: Sequence[Stream]) -> Iterator[Finding]:
    from ..postgres import catalog, comparison, rights, schema

    schemas = database.schemas
    with database.connect("comparing the tables") as connection:
        creates = rights.may_create(connection, schemas, streams)
        version = schema.ledger_version(connection, schemas.ledger)
        yield _ledger(version, schema.LEDGER_VERSION, creates, schemas.ledger)
        if version == schema.LEDGER_VERSION:
            for difference in catalog.ledger_differences(connection, schemas):
                yield Finding(False, f"ledger {schemas.ledger}", difference)
        routed = {stream.name for stream in streams if stream.route is not None}
        for table in tables_of(streams):
            exists = comparison.has_table(connection, table, schemas.events)
            wrong = comparison.table_differences(connection, table, schemas.events)
            remarks = [] if wrong else comparison.table_remarks(connection, table, schemas.events)
            what = f"table {table.table} of {table.name}" if table.name in routed else f"table of {table.name}"
            yield _table(what, wrong, remarks, may_come=creates and not exists and table.coordinates)


def _ledger(version: str | None, needed: str, creates: bool, schema: str) -> Finding:
    what = f"ledger {schema}"
    if version == needed:
        return Finding(True, what, f"version {version}")
    if version is None and creates:
        return Finding(True, what, "does not exist yet. The first run creates it")
    if version is not None and version > needed:
        return Finding(False, what, f"version {version}, newer than this code's {needed}: start the newer code here")
    versions = f"version {version or 'none'}, and this code needs {needed}"
    return Finding(False, what, f"{versions}: run `ingest migrate` as a role that may create schemas and tables")


def _table(what: str, differences: list[str], remarks: list[str], may_come: bool) -> Finding:
    from ..postgres import comparison

    if may_come:
        return Finding(True, what, "does not exist yet. The first run creates it")
    if differences:
        return Finding(False, what, comparison.in_words(differences))
    return Finding(True, what, "; ".join(["as declared", *remarks]))


SESSIONS_OF_RUN = 2
"""A run and its successor, at a hand-over."""
MIB_OF_RUN = 120
"""An estimate of the resident memory that a run does not share with other runs."""
_WAY_OUT = "give small streams one job= or lower PARALLELISM"


def capacity_findings(settings: Settings, streams: Sequence[Stream], session_limit: int) -> Iterator[Finding]:
    runs = sum(settings.for_job(job.name).parallelism for job in jobs_of(streams))
    sessions = SESSIONS_OF_RUN * runs + settings.database_pool_min
    needed = f"{runs} run{'s' if runs > 1 else ''} and the code server need up to {sessions} sessions"
    if sessions > session_limit:
        advice = f"{_WAY_OUT}, or raise max_connections or the CONNECTION LIMIT"
        yield Finding(False, "PostgreSQL: sessions", f"{needed}, and the role may have {session_limit}: {advice}")
    else:
        yield Finding(True, "PostgreSQL: sessions", f"{needed}, the role may have {session_limit}")
    machine_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    if MIB_OF_RUN * runs > machine_mib:
        needed = f"{runs} runs need about {MIB_OF_RUN * runs:,} MiB"
        yield Finding(False, "memory", f"{needed}, and this machine has {machine_mib:,} MiB: {_WAY_OUT}")

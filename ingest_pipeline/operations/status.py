"""Every stream's status: the questions are asked here, and judgement.py judges the answers."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC

from ..core.ledger import LedgerSnapshot
from ..core.start import Survey
from .judgement import StreamStatus, judge
from .partitions import partitions_of
from .problems import Kind
from .questions import KafkaQuestions, LedgerQuestions
from .refused_records import letter_facts
from .snapshot import StreamSnapshot, answered
from .stream_context import StreamContext

SensorReasons = Callable[[Collection[str]], Mapping[str, str]]
"""Job → why its sensor does not look, by Dagster, for these jobs. Jobs without a known reason are left out."""
_OF_SENSORS = (Kind.NO_RUN, Kind.SILENT_SENSOR)


def statuses(
    contexts: Iterable[StreamContext], rates: bool = False, sensor_reasons: SensorReasons | None = None
) -> list[StreamStatus]:
    """Every stream's status. Never raises an IngestError, because a silent server is part of the status. Without Kafka
    the ledger's figures remain.

    Args:
        rates: look at the newest rows of the tables too.
        sensor_reasons: asked only about streams without a run or without a sensor that looks.
    """
    views = snapshots(contexts, rates)
    judged = [judge(view) for view in views]
    if sensor_reasons is None:
        return judged
    suffering = {
        view.stream.job
        for view, status in zip(views, judged, strict=True)
        if any(problem.kind in _OF_SENSORS for problem in status.problems)
    }
    if not suffering:
        return judged
    reasons = sensor_reasons(suffering)
    return [judge(replace(view, sensor_reason=reasons.get(view.stream.job))) for view in views]


def status_of(context: StreamContext) -> StreamStatus:
    (status,) = statuses([context])
    return status


def document(statuses: Iterable[StreamStatus]) -> str:
    """The statuses as JSON, for `ingest status --json` and `/status`. docs/operations.md explains the fields. Times are
    RFC 3339, in UTC."""
    entries = [
        {
            "stream": status.stream,
            "level": status.level.label,
            "messages": status.messages,
            "paused": status.paused,
            "lag": status.lag,
            "late": status.late,
            "open_letters": status.open_letters,
            "ticked_at": status.ticked_at,
            "partitions": [{**asdict(row), "open_letters": row.open_letters} for row in status.partitions],
        }
        for status in statuses
    ]
    return json.dumps(entries, indent=2, default=lambda time: time.astimezone(UTC).isoformat())


def snapshots(contexts: Iterable[StreamContext], rates: bool = False) -> list[StreamSnapshot]:
    """Every stream's answers. The contexts belong to one code location."""
    contexts = list(contexts)
    if not contexts:
        return []
    ledger_questions = LedgerQuestions(contexts)
    ledgers = ledger_questions.of_all(lambda ledgers: ledgers.snapshots())
    readable = {name: ledger for name, ledger in ledgers.items() if isinstance(ledger, LedgerSnapshot)}
    views = {
        context.stream.name: StreamSnapshot(
            context.stream,
            context.settings.max_delay_seconds,
            context.job_settings.poll_seconds,
            ledgers[context.stream.name],
        )
        for context in contexts
    }
    if not readable:
        return list(views.values())
    # The topics come right after the positions: what a run reads in between may be deleted, and that is no loss.
    kafka_questions = KafkaQuestions(contexts)
    surveys = kafka_questions.surveys(readable)
    accounts = ledger_questions.of_all(lambda ledgers: ledgers.accounting())
    letters = ledger_questions.of_all(lambda ledgers: ledgers.open_letters())
    for context in contexts:
        name = context.stream.name
        if name in readable:
            view = replace(views[name], topic=surveys[name], accounting=accounts[name], open_letters=letters[name])
            view = _with_tables(view, readable[name], context, ledger_questions, rates=rates)
            view = replace(view, partitions=partitions_of(view, readable[name]))
            if isinstance(view.topic, Survey):
                old = kafka_questions.old(context, view, readable[name])
                view = replace(view, old_by_kafka=old, behind_group=kafka_questions.behind_group(context, view))
            views[name] = view
    return list(views.values())


def _with_tables(
    view: StreamSnapshot, ledger: LedgerSnapshot, context: StreamContext, questions: LedgerQuestions, *, rates: bool
) -> StreamSnapshot:
    """The view with the answers of the stream's own tables, as far as they are of interest."""
    from ..postgres.table_reads import newest_timestamps, rows_per_second

    letters = answered(view.open_letters)
    if letters:
        view = replace(view, letter_facts=questions.ask(lambda: letter_facts(context, letters, ledger.state)))
    stream = context.stream
    if rates and ledger.positions and stream.finds_by_coordinates:
        database = context.clients.database()
        view = replace(
            view,
            newest_at=answered(questions.ask(lambda: newest_timestamps(database, stream))) or {},
            rows_per_second=questions.ask(lambda: rows_per_second(database, stream)),
        )
    return view

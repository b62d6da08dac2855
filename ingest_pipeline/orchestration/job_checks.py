"""The asset checks of a job: their definition, and their results by one look at the servers."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES as EVALUATED,
)

from ..core.errors import IngestError, TopicMissing
from ..core.ledger import LedgerSnapshot
from ..operations.judgement import judge
from ..operations.levels import Level
from ..operations.problems import Kind, Problem
from ..operations.refused_records import judge_letters
from ..operations.snapshot import Answer, StreamSnapshot, T
from ..operations.status import snapshots
from ..operations.stream_context import StreamContext
from .asset_keys import asset_key
from .checks import (
    ACCOUNTED,
    AS_DECLARED,
    CHECKS,
    NO_LOSS,
    NOT_BEGUN,
    UNKNOWN,
    UP_TO_DATE,
    WITHIN_LIMIT,
    CheckResult,
    Results,
    at_limit,
    evaluated,
    judged_accounts,
    judged_missing_topic,
    judged_survey,
    limit_reached,
    newest_evaluation,
)


def job_checks(job: str, stream_contexts: Sequence[StreamContext]) -> dg.AssetChecksDefinition:
    """The same checks of a job's streams for the Execute button. An op for every stream would double the time that
    every process takes to load a thousand streams."""
    by_key = {asset_key(stream_context): stream_context for stream_context in stream_contexts}

    @dg.multi_asset_check(
        name=f"{job}_checks",
        specs=[dg.AssetCheckSpec(name, asset=key, description=text) for key in by_key for name, text in CHECKS.items()],
        can_subset=True,
    )
    def evaluate(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        selected = context.selected_asset_check_keys
        keys = sorted({check.asset_key for check in selected})
        results = check_results([by_key[key] for key in keys])
        for key in keys:
            stream_context = by_key[key]
            for result in at_limit(
                results[stream_context.stream.name], limit_reached(context.instance, stream_context)
            ):
                if dg.AssetCheckKey(key, result.name) in selected:
                    yield dg.AssetCheckResult(
                        asset_key=key,
                        check_name=result.name,
                        passed=result.passed,
                        severity=result.severity,
                        description=result.description,
                        metadata=result.metadata,
                    )

    return evaluate


def check_results(stream_contexts: Sequence[StreamContext]) -> Results:
    """Stream → the results of its checks now. The servers are asked once for all streams."""
    from ..postgres.schema import compared_tables

    views = snapshots(stream_contexts)
    tables: Answer[Mapping[str, tuple[bool, list[str]]]]
    try:
        tables = compared_tables(stream_contexts[0].clients.database(), [view.stream for view in views])
    except IngestError as error:
        tables = error
    return {
        view.stream.name: [evaluated(name, partial(judge_view, view)) for name, judge_view in _JUDGEMENTS.items()]
        + [evaluated(AS_DECLARED, partial(_as_declared, view, tables))]
        for view in views
    }


def newest_outcomes(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]) -> dict[dg.AssetCheckKey, bool | None]:
    """Check → the outcome of its newest evaluation. Checks without one are absent."""
    checks = [dg.AssetCheckKey(key, name) for key in keys for name in CHECKS]
    outcomes: dict[dg.AssetCheckKey, bool | None] = {}
    for check, record in instance.event_log_storage.get_latest_asset_check_execution_by_key(checks).items():
        event = record.event.dagster_event if record.event is not None and record.status in EVALUATED else None
        if event is not None:
            outcomes[check] = event.asset_check_evaluation_data.passed
        elif (evaluation := newest_evaluation(instance, check.asset_key, check.name)) is not None:
            outcomes[check] = evaluation.passed
    return outcomes


def _accounted(view: StreamSnapshot) -> CheckResult:
    _value(view.ledger)
    return judged_accounts(_value(view.accounting))


def _no_loss(view: StreamSnapshot) -> CheckResult:
    ledger = _value(view.ledger)
    if isinstance(view.topic, TopicMissing):
        return judged_missing_topic(view.stream.name, view.topic, len(ledger.positions))
    return judged_survey(view.stream.name, _value(view.topic))


def _within_limit(view: StreamSnapshot) -> CheckResult:
    """Show the open dead letters, most frequent reason first. They are a warning, and a failure if most of the last
    records were refused."""
    ledger = _value(view.ledger)
    if not ledger.positions:
        return CheckResult(WITHIN_LIMIT, True, NOT_BEGUN)
    letters = _value(view.open_letters)
    judgement = judge_letters(view.stream, letters, _value(view.letter_facts), ledger.state)
    metadata = {"open_dead_letters": sum(row.letters for row in letters)}
    if not isinstance(judgement, Problem):
        return CheckResult(WITHIN_LIMIT, True, judgement, metadata=metadata)
    grave = judgement.kind == Kind.MOSTLY_REFUSED
    return CheckResult(WITHIN_LIMIT, False, judgement.message, grave=grave, metadata=metadata)


def _up_to_date(view: StreamSnapshot) -> CheckResult:
    """Fail for a backlog that grows old or that no run drains. A backlog that is being drained is no failure."""
    status = judge(view)
    if not status.partitions or status.late is None or (status.lag is None and not status.late):
        unknown = [problem.message for problem in status.problems if problem.level == Level.UNKNOWN]
        description = "; ".join(unknown) or f"{UNKNOWN}: {'; '.join(status.messages)}"
        return CheckResult(UP_TO_DATE, False, description, grave=False)
    stops = [p for p in status.problems if p.level == Level.STOPPED and p.kind in (Kind.NO_RUN, Kind.FAILED_RUN)]
    messages = [*status.late, *(problem.message for problem in stops)]
    description = "; ".join(messages) or f"no record waits for more than {view.max_delay_seconds:,} s"
    figures = {} if status.lag is None else {"lag": status.lag}
    if None not in (delays := [partition.delay for partition in status.partitions]):
        figures["delay_seconds"] = round(max(delay or 0.0 for delay in delays))
    grave = bool(stops) or any(problem.kind == Kind.STUCK for problem in status.problems)
    return CheckResult(
        UP_TO_DATE, not messages, f"lag {status.lag_words}; {description}", grave=grave, metadata=figures
    )


_JUDGEMENTS = {ACCOUNTED: _accounted, NO_LOSS: _no_loss, WITHIN_LIMIT: _within_limit, UP_TO_DATE: _up_to_date}


def _as_declared(view: StreamSnapshot, tables: Answer[Mapping[str, tuple[bool, list[str]]]]) -> CheckResult:
    """Compare the table with its declaration, as a run does before it reads."""
    from ..postgres.comparison import in_words

    exists, differences = _value(tables)[view.stream.name]
    if not exists and not (isinstance(view.ledger, LedgerSnapshot) and view.ledger.positions):
        return CheckResult(AS_DECLARED, True, NOT_BEGUN)
    if differences:
        return CheckResult(AS_DECLARED, False, in_words(differences))
    columns = sum(len(table.table_columns) for table in view.stream.tables)
    return CheckResult(AS_DECLARED, True, f"{columns} columns as declared")


def _value(answer: Answer[T]) -> T:
    """Raises an error that takes the answer's place."""
    if isinstance(answer, IngestError):
        raise answer
    return answer

"""Asset checks of a stream. Runs, the sensor and people in the UI evaluate them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES as EVALUATED,
)

from ..core.errors import DeadLetterLimit, IngestError, TopicMissing
from ..core.loss import topic_gone
from ..core.start import survey, unanswered_words
from ..operations.levels import Level, judge_error
from ..operations.problems import Kind, Problem
from ..operations.refused_records import judge_letters, letter_facts
from ..operations.status import status_of
from ..operations.stream_context import StreamContext
from . import tags
from .asset_keys import asset_key
from .run_history import ENDED, failed_by_hand

ACCOUNTED = "every_offset_accounted_for"
NO_LOSS = "no_data_loss"
WITHIN_LIMIT = "dead_letters_within_limit"
UP_TO_DATE = "up_to_date"
AS_DECLARED = "table_as_declared"
UNKNOWN = "unknown"
"""Begins the description of a check without an answer."""
CHECKS = {
    ACCOUNTED: "Counters, dead letters and gaps add up to the passed offsets. The view accounting has the counts.",
    NO_LOSS: "Kafka still holds the next offset of every partition.",
    WITHIN_LIMIT: "No run stopped at the dead-letter limit, and no open dead letter waits for an operator.",
    UP_TO_DATE: "No record waits for more than MAX_DELAY_SECONDS, without a run, or behind a failed run.",
    AS_DECLARED: "The table has the columns, types and primary key that the stream declares.",
}


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. `grave` is False for a warning, as for a check without an answer, which does not pass
    either."""

    name: str
    passed: bool
    description: str
    grave: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def severity(self) -> dg.AssetCheckSeverity:
        return dg.AssetCheckSeverity.ERROR if self.grave else dg.AssetCheckSeverity.WARN

    def evaluation(self, key: dg.AssetKey) -> dg.AssetCheckEvaluation:
        """The event for Dagster, in a run or without one."""
        return dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=self.name,
            passed=self.passed,
            metadata={name: dg.MetadataValue.int(value) for name, value in self.metadata.items()},
            severity=self.severity,
            description=self.description,
        )


Evaluations: TypeAlias = Mapping[str, Callable[[StreamContext], CheckResult]]


@dataclass(frozen=True)
class Evaluation:
    """The description of a check's result in Dagster, and its Unix time."""

    passed: bool
    description: str
    evaluated_at: float


def newest_evaluation(instance: dg.DagsterInstance, key: dg.AssetKey, name: str) -> Evaluation | None:
    """The newest evaluation of the check, in a run or without a run. Planned records without an evaluation are left
    out."""
    storage, check = instance.event_log_storage, dg.AssetCheckKey(key, name)
    for record in storage.get_asset_check_execution_history(check, limit=1, status=EVALUATED):
        if record.event is not None and record.event.dagster_event is not None:
            evaluation = record.event.dagster_event.asset_check_evaluation_data
            return Evaluation(evaluation.passed, evaluation.description or "", record.event.timestamp)
    return None


def check_results(
    stream_context: StreamContext, limit_reached: str | None = None, evaluations: Evaluations | None = None
) -> Iterator[CheckResult]:
    """Evaluate every check now.

    Args:
        limit_reached: the message of a run that stopped at the dead-letter limit. Its batch was not committed, so the
            ledger has no such dead letters.
        evaluations: check → function. None: EVALUATIONS.
    """
    for name, evaluate in (evaluations or EVALUATIONS).items():
        try:
            if name == WITHIN_LIMIT and limit_reached is not None:
                yield CheckResult(name, False, limit_reached)
            else:
                yield evaluate(stream_context)
        except IngestError as error:
            level, message = judge_error(error)
            yield CheckResult(name, False, message, grave=level == Level.STOPPED)


def accounted(stream_context: StreamContext) -> CheckResult:
    """Compare the ledger's counters with each other, without count(*) over the events."""
    entries = stream_context.ledger.accounting()
    wrong = [entry for entry in entries if not entry.accounted]
    totals = {
        name: sum(getattr(entry, name) for entry in entries)
        for name in ("rows", "dead_letters", "skipped", "absent", "lost")
    }
    if not wrong:
        passed = sum(entry.next_offset - entry.first_offset for entry in entries)
        return CheckResult(ACCOUNTED, True, f"{passed:,} offsets accounted for", metadata=totals)
    first = wrong[0]
    description = (
        f"partition {first.partition}, incarnation {first.incarnation}: {first.unaccounted:,} offsets"
        f" unaccounted for ({first.dead_letters:,} dead letters counted, {first.letters_kept:,} kept,"
        f" {first.lost:,} offsets lost, {first.gaps_kept:,} in gaps)"
    )
    more = f" ({len(wrong) - 1} more like it)" if len(wrong) > 1 else ""
    return CheckResult(ACCOUNTED, False, description + more, metadata=totals)


def no_loss(stream_context: StreamContext) -> CheckResult:
    """Compare the topic with the positions."""
    try:
        survey_result = survey(stream_context.topic, stream_context.ledger)
    except TopicMissing as error:
        if positions := stream_context.ledger.positions():
            return CheckResult(NO_LOSS, False, topic_gone(error, len(positions), stream_context.stream.name).message)
        return CheckResult(NO_LOSS, True, error.message)
    if survey_result.losses:
        description = "; ".join(loss.description for loss in survey_result.losses[:3])
        return CheckResult(NO_LOSS, False, f"{description}. To go on: ingest accept-loss {stream_context.stream.name}")
    if survey_result.unanswered:
        description = (
            f"Kafka holds the next offset of every partition that answers. {unanswered_words(survey_result.unanswered)}"
        )
        return CheckResult(NO_LOSS, True, description)
    return CheckResult(NO_LOSS, True, "Kafka holds the next offset of every partition")


def within_limit(stream_context: StreamContext) -> CheckResult:
    """Show the open dead letters, most frequent reason first. They are a warning, and a failure if most of the last
    records were refused."""
    ledger = stream_context.ledger
    if not ledger.positions():
        return CheckResult(WITHIN_LIMIT, True, "the stream has not begun")
    letters, state = ledger.open_letters(), ledger.state()
    facts = letter_facts(stream_context, letters, state)
    judgement = judge_letters(stream_context.stream, letters, facts, state)
    metadata = {"open_dead_letters": sum(row.letters for row in letters)}
    if not isinstance(judgement, Problem):
        return CheckResult(WITHIN_LIMIT, True, judgement, metadata=metadata)
    grave = judgement.kind == Kind.MOSTLY_REFUSED
    return CheckResult(WITHIN_LIMIT, False, judgement.message, grave=grave, metadata=metadata)


def up_to_date(stream_context: StreamContext) -> CheckResult:
    """Fail for a backlog that grows old or that no run drains. A backlog that is being drained is no failure."""
    status = status_of(stream_context)
    if not status.partitions or status.late is None or (status.lag is None and not status.late):
        unknown = [problem.message for problem in status.problems if problem.level == Level.UNKNOWN]
        description = "; ".join(unknown) or f"{UNKNOWN}: {'; '.join(status.messages)}"
        return CheckResult(UP_TO_DATE, False, description, grave=False)
    allowed = stream_context.settings.max_delay_seconds
    stops = [p for p in status.problems if p.level == Level.STOPPED and p.kind in (Kind.NO_RUN, Kind.FAILED_RUN)]
    messages = [*status.late, *(problem.message for problem in stops)]
    description = "; ".join(messages) or f"no record waits for more than {allowed:,} s"
    figures = {} if status.lag is None else {"lag": status.lag}
    if None not in (delays := [partition.delay for partition in status.partitions]):
        figures["delay_seconds"] = round(max(delay or 0.0 for delay in delays))
    lag = "unknown" if status.lag is None else f"{status.lag:,}"
    grave = bool(stops) or any(problem.kind == Kind.STUCK for problem in status.problems)
    return CheckResult(UP_TO_DATE, not messages, f"lag {lag}; {description}", grave=grave, metadata=figures)


def as_declared(stream_context: StreamContext) -> CheckResult:
    """Compare the table with its declaration, as a run does before it reads."""
    from ..postgres.comparison import has_table, in_words, table_differences

    stream, database = stream_context.stream, stream_context.clients.database()
    begun = bool(stream_context.ledger.positions())
    with database.connect(f"comparing the table of stream {stream.name}") as connection:
        if not begun and not has_table(connection, stream, database.schemas.events):
            return CheckResult(AS_DECLARED, True, "the stream has not begun")
        wrong = table_differences(connection, stream, database.schemas.events)
    if wrong:
        return CheckResult(AS_DECLARED, False, in_words(wrong))
    return CheckResult(AS_DECLARED, True, f"{len(stream.table_columns)} columns as declared")


EVALUATIONS: Evaluations = {
    ACCOUNTED: accounted,
    NO_LOSS: no_loss,
    WITHIN_LIMIT: within_limit,
    UP_TO_DATE: up_to_date,
    AS_DECLARED: as_declared,
}


def stream_checks(stream_context: StreamContext) -> dg.AssetChecksDefinition:
    """The same checks for the Execute button."""
    stream, key = stream_context.stream, asset_key(stream_context)

    @dg.multi_asset_check(
        name=f"{stream.name}_checks",
        specs=[dg.AssetCheckSpec(name, asset=key, description=text) for name, text in CHECKS.items()],
        can_subset=True,
    )
    def evaluate(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        selected = {check.name for check in context.selected_asset_check_keys}
        for verdict in check_results(stream_context, limit_reached(context.instance, stream_context)):
            if verdict.name in selected:
                yield dg.AssetCheckResult(
                    asset_key=key,
                    check_name=verdict.name,
                    passed=verdict.passed,
                    severity=verdict.severity,
                    description=verdict.description,
                    metadata=verdict.metadata,
                )

    return evaluate


def limit_reached(instance: dg.DagsterInstance, stream_context: StreamContext) -> str | None:
    """The status' message about the stream's newest ended run, if the run stopped at the dead-letter limit. None once
    an operator has acted."""
    stream = stream_context.stream
    newest = instance.get_runs(dg.RunsFilter(job_name=tags.job_name(stream.job), statuses=ENDED), limit=1)
    candidates = [failed_by_hand(instance, stream), *newest]
    reached = f"failed:{DeadLetterLimit.__name__}"
    if not any(run is not None and tags.outcome_of(run.tags, stream) == reached for run in candidates):
        return None
    problems = status_of(stream_context).problems
    return next((problem.message for problem in problems if problem.kind == Kind.FAILED_RUN), None)

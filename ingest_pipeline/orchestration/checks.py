"""Asset checks of a stream. Runs, the sensor and people in the UI evaluate them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES as EVALUATED,
)

from ..core.errors import DeadLetterLimit, IngestError, TopicMissing
from ..core.ledger import Account
from ..core.loss import command_to_accept, topic_gone
from ..core.start import Survey, unanswered_words
from ..operations.levels import Level, judge_error
from ..operations.problems import Kind
from ..operations.status import status_of
from ..operations.stream_context import StreamContext
from . import tags
from .run_history import ENDED, failed_by_hand

ACCOUNTED = "every_offset_accounted_for"
NO_LOSS = "no_data_loss"
WITHIN_LIMIT = "dead_letters_within_limit"
UP_TO_DATE = "up_to_date"
AS_DECLARED = "table_as_declared"
NOT_BEGUN, UNKNOWN = "the stream has not begun", "unknown"
"""The description for a stream without positions, and the beginning of one without an answer."""
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


Results: TypeAlias = Mapping[str, Sequence[CheckResult]]
"""Stream → the results of its checks."""


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


def at_limit(results: Sequence[CheckResult], message: str | None) -> list[CheckResult]:
    """The results with the message of a run that stopped at the dead-letter limit. Its batch was not committed, so the
    ledger has no such dead letters."""
    if message is None:
        return list(results)
    return [CheckResult(WITHIN_LIMIT, False, message) if r.name == WITHIN_LIMIT else r for r in results]


def evaluated(name: str, evaluate: Callable[[], CheckResult]) -> CheckResult:
    """The result, or the error in its place."""
    try:
        return evaluate()
    except IngestError as error:
        level, message = judge_error(error)
        return CheckResult(name, False, message, grave=level == Level.STOPPED)


def judged_accounts(entries: Sequence[Account]) -> CheckResult:
    """Compare the ledger's counters with each other, without count(*) over the events."""
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


def judged_missing_topic(stream: str, error: TopicMissing, positions: int) -> CheckResult:
    if positions:
        return CheckResult(NO_LOSS, False, topic_gone(error, positions, stream).message)
    return CheckResult(NO_LOSS, True, error.message)


def judged_survey(stream: str, survey_result: Survey) -> CheckResult:
    if survey_result.losses:
        description = "; ".join(loss.description for loss in survey_result.losses[:3])
        command = command_to_accept(survey_result.losses[0], stream)
        return CheckResult(NO_LOSS, False, f"{description}. To go on: {command}")
    silent = survey_result.unanswered
    answered = f" that answers. {unanswered_words(silent)}" if silent else ""
    return CheckResult(NO_LOSS, True, f"Kafka holds the next offset of every partition{answered}")


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

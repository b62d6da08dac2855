"""Asset checks of a stream: evaluated by its runs, by its sensor when something is wrong, and by hand in the UI."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from ..core.errors import IngestError, TopicMissing
from ..core.start import survey
from ..core.stream import Stream
from .assets import asset_key
from .connections import Connections

ACCOUNTED = "every_offset_accounted_for"
NO_LOSS = "no_data_loss"
_DESCRIPTIONS = {
    ACCOUNTED: "Counters, dead letters and gaps add up to the offsets that were passed; see the view accounting.",
    NO_LOSS: "Kafka still holds the next offset of every partition.",
}


@dataclass(frozen=True)
class Verdict:
    """What one check found. `certain` is False when it could not be evaluated: it does not pass then."""

    name: str
    passed: bool
    said: str
    certain: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def severity(self) -> dg.AssetCheckSeverity:
        return dg.AssetCheckSeverity.ERROR if self.certain else dg.AssetCheckSeverity.WARN

    def evaluation(self, key: dg.AssetKey) -> dg.AssetCheckEvaluation:
        """As an event, in a run or without one."""
        return dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=self.name,
            passed=self.passed,
            metadata={name: dg.MetadataValue.int(value) for name, value in self.metadata.items()},
            severity=self.severity,
            description=self.said,
        )


def verdicts(stream: Stream, connections: Connections) -> Iterator[Verdict]:
    """Every check, evaluated now."""
    for name, evaluate in ((ACCOUNTED, accounted), (NO_LOSS, no_loss)):
        try:
            yield evaluate(stream, connections)
        except IngestError as error:
            yield Verdict(name, False, f"could not be evaluated: {error.message}", certain=False)


def accounted(stream: Stream, connections: Connections) -> Verdict:
    """The ledger's parts compared with each other; never count(*) over the events."""
    entries = connections.book(stream).accounting()
    wrong = [entry for entry in entries if not entry.accounted]
    totals = {
        name: sum(getattr(entry, name) for entry in entries)
        for name in ("rows", "dead_letters", "skipped", "absent", "lost")
    }
    if not wrong:
        passed = sum(entry.next_offset - entry.first_offset for entry in entries)
        return Verdict(ACCOUNTED, True, f"{passed:,} offsets accounted for", metadata=totals)
    first = wrong[0]
    said = (
        f"partition {first.kafka_partition}, incarnation {first.kafka_incarnation}: {first.unaccounted:,} offsets"
        f" unaccounted for; {first.dead_letters:,} dead letters counted, {first.letters_kept:,} kept;"
        f" {first.lost:,} offsets lost, {first.gaps_kept:,} in gaps"
    )
    more = f" ({len(wrong) - 1} more like it)" if len(wrong) > 1 else ""
    return Verdict(ACCOUNTED, False, said + more, metadata=totals)


def no_loss(stream: Stream, connections: Connections) -> Verdict:
    """The topic as it is, compared with the positions."""
    try:
        _, losses = survey(connections.topic(stream), connections.book(stream))
    except TopicMissing as error:
        return Verdict(NO_LOSS, not connections.book(stream).positions(), error.message)
    if losses:
        said = "; ".join(loss.said for loss in losses[:3])
        return Verdict(NO_LOSS, False, f"{said}. To go on: ingest accept-loss {stream.name}")
    return Verdict(NO_LOSS, True, "Kafka holds the next offset of every partition")


def stream_checks(stream: Stream, connections: Connections, key_prefix: Sequence[str]) -> dg.AssetChecksDefinition:
    """The same checks for the Execute button."""
    key = asset_key(stream, key_prefix)

    @dg.multi_asset_check(
        name=f"{stream.name}_checks",
        specs=[dg.AssetCheckSpec(name, asset=key, description=said) for name, said in _DESCRIPTIONS.items()],
        can_subset=True,
    )
    def evaluate(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        selected = {check.name for check in context.selected_asset_check_keys}
        for verdict in verdicts(stream, connections):
            if verdict.name in selected:
                yield dg.AssetCheckResult(
                    asset_key=key,
                    check_name=verdict.name,
                    passed=verdict.passed,
                    severity=verdict.severity,
                    description=verdict.said,
                    metadata=verdict.metadata,
                )

    return evaluate

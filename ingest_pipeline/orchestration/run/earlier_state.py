"""Warns that the database has lost commits, for example by a restored backup."""

from collections.abc import Mapping
from dataclasses import replace

from ...core.behind_group import behind_group
from ...core.ports import Source
from ...core.record import StoredPosition
from ...operations.stream_context import StreamContext
from ..checks import NO_LOSS, CheckResult
from .journal import Journal


class EarlierState:
    """Compares the beginning of a run with the group's offsets before the run's first commit."""

    def __init__(self, stream_context: StreamContext, source: Source, journal: Journal) -> None:
        self._group, self._topic = stream_context.clients.group_id(stream_context.stream), stream_context.stream.topic
        self._source, self._journal = source, journal
        self._warned = False

    def judged(
        self, result: CheckResult, positions: Mapping[int, StoredPosition], starts: Mapping[int, int]
    ) -> CheckResult:
        """The result of `no_data_loss` with the warning, and every other result unchanged."""
        if result.name != NO_LOSS or not result.passed:
            return result
        begun = {p: replace(positions[p], next_offset=start) for p, start in starts.items() if p in positions}
        message = behind_group(self._group, begun, self._source.earlier_commits(self._topic))
        if message is None:
            return result
        if not self._warned:
            self._warned = True
            self._journal.warning(message)
        return CheckResult(NO_LOSS, False, message, grave=False)

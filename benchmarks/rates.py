"""From counts over time to a rate: the same rule for every design that is compared."""

import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import ceil

SPREAD = ("min", "median", "max")
Samples = Sequence[tuple[float, int]]
"""(monotonic seconds, records accounted for so far), in order."""


def window(by_topic: Mapping[str, Samples]) -> tuple[float, float]:
    """(from, to): while every topic drains, between 10 % and 90 % of its own records.

    Raises:
        SystemExit: the topics did not drain at the same time.
    """
    since = max(_when(samples, 0.1)[0] for samples in by_topic.values())
    until = min(_when(samples, 0.9)[0] for samples in by_topic.values())
    if until - since < 0.5:
        raise SystemExit("the topics were hardly drained at the same time: measure more records")
    return since, until


def rate(by_topic: Mapping[str, Samples], since: float, until: float) -> float:
    """Rows a second of all topics together."""
    rows = sum(_at(samples, until) - _at(samples, since) for samples in by_topic.values())
    return rows / (until - since)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of these values that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(round(share * len(ordered), 6)) - 1)]


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Cells of a table: min, median, max."""
    return " | ".join(f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def _when(samples: Samples, share: float) -> tuple[float, int]:
    return samples[bisect_left(samples, share * samples[-1][1], key=lambda sample: sample[1])]


def _at(samples: Samples, moment: float) -> float:
    """The count at a moment, interpolated between two samples, because commits come in steps."""
    i = min(bisect_left(samples, moment, key=lambda sample: sample[0]), len(samples) - 1)
    (time, count), (time_before, before) = samples[i], samples[max(i - 1, 0)]
    if time <= moment or time == time_before:
        return count
    return before + (count - before) * (moment - time_before) / (time - time_before)

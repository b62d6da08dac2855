"""Percentiles from buckets: right to within 10 %, and in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.core.progress import LatencyHistogram
from ingest_pipeline_tests.samples import STEADY


@STEADY
@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_within_ten_percent(delays: list[int], share: float) -> None:
    histogram = LatencyHistogram()
    now = 20_000_000
    histogram.add(now, [now - delay for delay in delays])
    rank = max(1, -(-int(share * 1000) * len(delays) // 1000))
    true = sorted(delays)[rank - 1]
    percentile = histogram.percentile_ms(share)
    assert percentile is not None
    assert true / 1.11 - 1 <= percentile <= max(true * 1.11, 1.0) + 1
    assert histogram.maximum_ms == max(delays)


def test_nothing_counted_has_no_percentile() -> None:
    assert LatencyHistogram().percentile_ms(0.5) is None


def test_a_clock_that_is_ahead_of_ours_counts_as_no_delay() -> None:
    histogram = LatencyHistogram()
    histogram.add(1000, [5000])
    assert (histogram.percentile_ms(0.99), histogram.maximum_ms) == (0.0, 0.0)

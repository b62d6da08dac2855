"""The limit of refused records: window, limits, an operator's allowance, and the error message."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline.core.dead_letter_limit import WINDOW, LetterLimits, LetterWindow, Refusal
from ingest_pipeline.core.dead_letters import dead_letter
from ingest_pipeline.core.errors import DeadLetterLimit, RecordRefused
from ingest_pipeline.core.record import DeadLetter
from ingest_pipeline_tests.samples import BAD, STEADY, message

LIMITS = LetterLimits(max_ratio=0.1, max_consecutive=100)


def window(limits: LetterLimits | None = LIMITS) -> LetterWindow:
    return LetterWindow("reading", limits)


def letters(count: int, first: int = 0, reason: str = "broken") -> list[DeadLetter]:
    refused = RecordRefused(reason, stage="decode")
    return [dead_letter(message(0, first + i, BAD), 1, refused, value_limit=100) for i in range(count)]


def passed(before: LetterWindow, outcomes: str, allowed: int = 0) -> LetterWindow:
    """The window after a batch. A character is a record: "." stored, "d" refused by the decoder, "p" by PostgreSQL."""
    decoded, rows_before, rows = [], [], 0
    refused: list[tuple[int, int]] = []
    for offset, outcome in enumerate(outcomes):
        if outcome == "d":
            decoded += letters(1, offset)
            rows_before.append(rows)
            continue
        if outcome == "p":
            refused.append((rows, offset))
        rows += 1
    tally = before.tally(decoded, rows_before, allowed)
    for row, offset in refused:
        tally.refuse(row, 0, offset, "check violation")
    return tally.after(rows)


def naive(outcomes: str, limits: LetterLimits) -> bool:
    """Whether any record exceeds the limits, computed by looking back from every record."""
    streak = 0
    for end in range(1, len(outcomes) + 1):
        streak = 0 if outcomes[end - 1] == "." else streak + 1
        last = outcomes[max(0, end - WINDOW) : end]
        if streak > limits.max_consecutive or len(last) - last.count(".") > limits.max_ratio * WINDOW:
            return True
    return False


def test_reaching_a_limit_is_allowed_and_exceeding_it_is_not() -> None:
    at_limit = passed(window(), "d" * 100)
    assert at_limit.streak == 100
    with pytest.raises(DeadLetterLimit, match=r"^stream reading: 101 records in a row were refused: 101x broken"):
        passed(at_limit, "d")
    with pytest.raises(DeadLetterLimit, match="101 of the last 1,000 records were refused"):
        passed(passed(at_limit, "." * 50), "d")
    assert passed(passed(at_limit, "." * 1000), "d" * 100).streak == 100


def test_refusals_of_decoder_and_database_count_in_record_order() -> None:
    few = LetterWindow("reading", LetterLimits(1.0, 3))
    assert passed(few, "dpd.pdp").streak == 3
    with pytest.raises(DeadLetterLimit, match="4 records in a row"):
        passed(few, "..dpdp")
    assert passed(passed(few, "..p"), "dd.").streak == 3
    with pytest.raises(DeadLetterLimit, match="4 records in a row"):
        passed(passed(few, "..p"), "ddd")


@settings(STEADY)
@given(
    st.lists(st.text(".....dp", max_size=40), max_size=12),
    st.integers(1, 8),
    st.sampled_from([0.001, 0.01, 0.02, 1.0]),
)
def test_the_split_into_batches_does_not_matter(batches: list[str], consecutive: int, ratio: float) -> None:
    limits = LetterLimits(ratio, consecutive)
    now = window(limits)
    exceeded = False
    try:
        for batch in batches:
            now = passed(now, batch)
    except DeadLetterLimit:
        exceeded = True
    assert exceeded == naive("".join(batches), limits)


def test_a_rebuilt_window_equals_the_original() -> None:
    outcomes = "..dd.d" + "." * 30 + "ddd"
    rebuilt = window().rebuilt(Refusal(0, i, "broken") if o == "d" else None for i, o in enumerate(outcomes))
    assert rebuilt == passed(window(), outcomes)
    assert window().rebuilt([]) == window()


def test_allowed_refusals_do_not_count() -> None:
    tally = window(LetterLimits(1.0, 2)).tally(letters(5), [0] * 5, allowed=3)
    assert tally.after(0).streak == 2
    assert tally.uncounted == {(0, 0), (0, 1), (0, 2)}
    with pytest.raises(DeadLetterLimit):
        window(LetterLimits(1.0, 2)).tally(letters(6), [0] * 6, allowed=3).after(0)


def test_without_limits_every_refusal_passes() -> None:
    assert passed(window(None), "d" * 5000).streak == 5000


def test_the_error_names_reasons_offsets_and_commands() -> None:
    refused = [*letters(60, 7, "a"), *letters(30, 70, "b"), *letters(9, 200, "c"), *letters(2, 300, "d")]
    with pytest.raises(DeadLetterLimit) as raised:
        window().tally(refused, [0] * len(refused), 0).after(0)
    assert raised.value.message == (
        "stream reading: 101 records in a row were refused: 60x a; 30x b; 9x c (partition 0 offsets 7 to 301)."
        " Nothing of this batch was committed. See the waiting records: ingest dead-letters peek reading. Mend the"
        " producer or the stream's declaration. Or let them pass:"
        " ingest dead-letters allow reading --count N"
    )
    assert (raised.value.stream, raised.value.partition, raised.value.offset) == ("reading", 0, 301)

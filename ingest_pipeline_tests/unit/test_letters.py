"""A dead letter holds everything needed to try again, and too many of them stop a run."""

import base64
import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline.core.dead_letter_limit import WINDOW, LetterLimits, LetterTally, LetterWindow, Refusal
from ingest_pipeline.core.dead_letters import HEADERS_UNREADABLE, dead_letter
from ingest_pipeline.core.errors import DeadLetterLimit, RecordRefused
from ingest_pipeline.core.record import DeadLetter
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.samples import BAD, STEADY, message

REFUSED = RecordRefused("why", stage="insert", sqlstate="23514")


class WithHeaders(MemoryMessage):
    """A message that counts the reads of its headers. A second read would crash the real client."""

    def __init__(
        self, headers: Sequence[tuple[str, bytes | None]] | None, error: type[Exception] | None = None
    ) -> None:
        super().__init__(3, 7, 0, b"value", key=b"key", timestamp_ms=5)
        self._scripted, self._error, self.reads = headers, error, 0

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        self.reads += 1
        if self._error is not None:
            raise self._error
        return None if self._scripted is None else list(self._scripted)


def test_a_dead_letter_keeps_the_whole_record() -> None:
    letter = dead_letter(MemoryMessage(3, 7, 0, b"value", key=b"\xff", timestamp_ms=5), 2, REFUSED, value_limit=100)
    assert (letter.partition, letter.offset, letter.incarnation, letter.timestamp_ms) == (3, 7, 2, 5)
    assert (letter.key, letter.value, letter.value_bytes, letter.truncated) == (b"\xff", b"value", 5, False)
    assert letter.value_sha256 == hashlib.sha256(b"value").digest()
    assert (letter.stage, letter.reason, letter.sqlstate) == ("insert", "why", "23514")


@pytest.mark.parametrize(("sent", "kept"), [(None, None), (-1, None), (-2, -2), (2**62, 2**62)])
def test_a_record_may_lack_a_timestamp(sent: int | None, kept: int | None) -> None:
    assert dead_letter(MemoryMessage(0, 0, 0, b"", timestamp_ms=sent), 1, REFUSED, value_limit=10).timestamp_ms == kept


def test_a_long_value_is_cut_with_its_length_and_hash_kept() -> None:
    value = b"x" * 1000
    letter = dead_letter(MemoryMessage(0, 0, 0, value), 1, REFUSED, value_limit=10)
    assert (letter.value, letter.value_bytes, letter.truncated) == (b"x" * 10, 1000, True)
    assert letter.value_sha256 == hashlib.sha256(value).digest()


def test_headers_keep_order_repeats_and_null() -> None:
    message = WithHeaders([("a", b"\xff"), ("a", None), ("", b"")])
    assert dead_letter(message, 1, REFUSED, value_limit=10).headers == [
        ["a", base64.b64encode(b"\xff").decode()],
        ["a", None],
        ["", ""],
    ]
    assert message.reads == 1


@pytest.mark.parametrize("error", [SystemError, UnicodeDecodeError])
def test_unreadable_headers_are_noted_and_read_only_once(error: type[Exception]) -> None:
    raised = UnicodeDecodeError("utf-8", b"", 0, 1, "bad") if error is UnicodeDecodeError else error()
    message = WithHeaders(None, raised)  # type: ignore[arg-type]
    letter = dead_letter(message, 1, REFUSED, value_limit=10)
    assert (letter.headers, letter.reason, message.reads) == (None, "why" + HEADERS_UNREADABLE, 1)


def test_a_nul_in_a_header_key_does_not_keep_the_letter_out_of_jsonb() -> None:
    assert dead_letter(WithHeaders([("a\0b", b"")]), 1, REFUSED, value_limit=10).headers == [["a\ufffdb", ""]]


def test_a_tombstone_has_no_bytes() -> None:
    letter = dead_letter(MemoryMessage(0, 0, 0, None), 1, REFUSED, value_limit=10)
    assert (letter.value, letter.value_bytes, letter.truncated) == (None, 0, False)


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
    tally = LetterTally(before, decoded, rows_before, allowed)
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
    tally = LetterTally(window(LetterLimits(1.0, 2)), letters(5), [0] * 5, allowed=3)
    assert tally.after(0).streak == 2
    assert tally.uncounted == {(0, 0), (0, 1), (0, 2)}
    with pytest.raises(DeadLetterLimit):
        LetterTally(window(LetterLimits(1.0, 2)), letters(6), [0] * 6, allowed=3).after(0)


def test_the_error_names_reasons_offsets_and_commands() -> None:
    refused = [*letters(60, 7, "a"), *letters(30, 70, "b"), *letters(9, 200, "c"), *letters(2, 300, "d")]
    with pytest.raises(DeadLetterLimit) as raised:
        LetterTally(window(), refused, [0] * len(refused), 0).after(0)
    assert raised.value.message == (
        "stream reading: 101 records in a row were refused: 60x a; 30x b; 9x c (partition 0 offsets 7 to 301)."
        " Nothing of this batch was committed. See the waiting records: ingest dead-letters peek reading. Mend the"
        " producer or the stream's declaration. Or let them pass:"
        " ingest dead-letters allow reading --count N"
    )
    assert (raised.value.stream, raised.value.partition, raised.value.offset) == ("reading", 0, 301)

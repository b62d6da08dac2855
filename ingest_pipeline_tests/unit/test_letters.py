"""A dead letter holds everything needed to try again, for any key, value and headers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

import pytest

from ingest_pipeline.core.dead_letters import HEADERS_UNREADABLE, dead_letter
from ingest_pipeline.core.errors import RecordRefused
from ingest_pipeline.testing.log import MemoryMessage

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

"""Text → time, by one grammar for records, settings and commands. docs/streams.md shows it as a table.

`datetime.fromisoformat` alone cannot judge a text: it takes any character between date and time, a digit or a sign too,
and what it accepts differs between versions of Python.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_GRAMMAR = re.compile(
    r"""(?: [0-9]{4}-[0-9]{2}-[0-9]{2} | [0-9]{4}-W[0-9]{2}-[1-7] | [0-9]{8}(?=[Tt\ ]) )
    (?: [Tt\ ]
        (?: [01][0-9] | 2[0-3] )
        (?: :[0-5][0-9] (?: :[0-5][0-9] (?: [.,][0-9]+ )? )?
        |    [0-5][0-9] (?:  [0-5][0-9] (?: [.,][0-9]+ )? )?
        )?
        (?: (?P<blank>\ )? (?: [Zz] | [+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])? ) )?
    )?""",
    re.VERBOSE,
)
_SEVEN_DECIMALS = re.compile(rb"\.[0-9]{7}")
_NANOSECONDS = re.compile(rb"\.(?<=[0-9]:[0-9][0-9]\.)[0-9]{7}")
_ESCAPED_DIGIT = re.compile(rb"\\u00(?:2[eE]|3[0-9aA])")
"""A digit, a full stop or a colon that JSON escapes."""


def parse_timestamp(text: str) -> datetime:
    """The time, naive where the text names no zone. Decimals beyond the sixth are cut, never rounded.

    Raises:
        ValueError: the text is not of the grammar, or its date is in no calendar. The message never quotes the text.
    """
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise ValueError("not an ISO 8601 timestamp")
    if (blank := match.start("blank")) >= 0:
        text = text[:blank] + text[blank + 1 :]
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError("not an ISO 8601 timestamp") from None


def parse_instant(text: str) -> datetime:
    """The time in UTC. A text without a zone is UTC. Raises ValueError."""
    return in_utc(parse_timestamp(text))


def in_utc(time: datetime) -> datetime:
    """The same instant in UTC. A naive time is UTC. Raises ValueError when that is outside the years 1 to 9999."""
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("outside the years 1 to 9999") from None


def kafka_time(instant: datetime) -> datetime:
    """The instant, which Kafka may be asked for. Raises ValueError before 1970: to Kafka -1 ms means the log's end."""
    if instant.timestamp() < 0:
        raise ValueError("before 1970, where Kafka's timestamps begin")
    return instant


def may_have_nanoseconds(json: bytes) -> bool:
    """Whether a timestamp in the text may have more than six decimals, which msgspec rounds and this grammar cuts.

    True for some texts without one: whoever asks then takes the slower way, which has the same outcome.
    """
    if _SEVEN_DECIMALS.search(json) is not None and _NANOSECONDS.search(json) is not None:
        return True
    return b"\\" in json and _ESCAPED_DIGIT.search(json) is not None

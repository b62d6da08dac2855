"""Text → time, by one grammar for records, settings and commands. docs/streams.md shows the grammar as a table.

`datetime.fromisoformat` alone is not enough. Python's versions accept different texts, and any character may separate
date and time, even a digit or a sign.
"""

import re
from datetime import UTC, datetime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
"""An escaped digit, full stop or colon in JSON."""


def parse_timestamp(text: str) -> datetime:
    """The time, naive if the text has no zone. Decimals beyond the sixth are cut, not rounded.

    Raises:
        ValueError: the text does not follow the grammar, or the date does not exist. The message never quotes the text.
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
    """The same instant in UTC. A naive time is UTC. Raises ValueError outside the years 1 to 9999."""
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("outside the years 1 to 9999") from None


def utc_text(time: datetime) -> str:
    """For people, to the second: 2026-01-31T06:00:00Z."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def kafka_time(instant: datetime) -> datetime:
    """The instant, if Kafka can look it up. Raises ValueError before 1970, as -1 ms is Kafka's code for the end."""
    if instant.timestamp() < 0:
        raise ValueError("before 1970, where Kafka's timestamps begin")
    return instant


def may_have_nanoseconds(json: bytes) -> bool:
    """Whether a timestamp in the text may have more than six decimals. msgspec rounds such decimals, this grammar cuts.

    May also be True for other texts. The caller's slower path gives the same result.
    """
    if _SEVEN_DECIMALS.search(json) is not None and _NANOSECONDS.search(json) is not None:
        return True
    return b"\\" in json and _ESCAPED_DIGIT.search(json) is not None

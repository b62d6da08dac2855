"""A second timestamp reader, with a regular expression and calendar arithmetic of its own.

The oracle compares stored values with this reader. The module calls neither datetime's nor the product's parsers.
"""

import re

TIMES = [
    *(f"{year}-01-01T00:00:00{zone}" for year in ("0000", "0001", "0002", "9999", "10000") for zone in ("Z", "+14:00")),
    *("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-14:00", "-0001-01-01T00:00:00Z", "0001-01-01T00:00:00-00:01"),
    *("2026-12-31T23:59:60Z", "2026-12-31T24:00:00Z", "2026-02-30T00:00:00Z", "2026-01-01T00:00:00.123456789Z"),
    *("2026-01-01T00:00:00", "2026-01-01 00:00:00+00", "2026-01-01t00:00:00z", "2026-01-01", "20260101T000000Z"),
    *("2026-W01-1T00:00:00Z", "2026-001T00:00:00Z", "2026-01-01T00:00Z", "2026-01-01T00:00:00+23:59:59.999999"),
    *("2026-01-01T00:00:00-00:00", "2026-01-01T00:00:00+24:00"),
    *("\uff12\uff10\uff12\uff16-01-01T00:00:00Z", " 2026-01-01T00:00:00Z "),
    *("20241128100530250", "1705011530123", "2024-01-01+02:00", "2024-01-01Z"),
    *("20240101", "2024-W01-1", "2024-001T10:00Z"),
    *("2024-01-01_10:00:00Z", "2024-01-01  10:00", "2024-01-01T10:00:00 +0200"),
    *("2024-01-01 10:00:00 Z", "2024-01-01T10"),
    *("2026-12-31T23:59:59.9999995Z", "2026-12-31T23:59:59.9999999"),
    *("2026-12-31T23:59:59.9999999+00", "2024-01-01T10:00.5"),
    *("2024-01-01T10:00:00.", "2024-01-01T10:00:00+01:60"),
    *("2024-01-01T10:00:00.000000999+02:00", "2024-01-01T10:00:00,25"),
    *("infinity", "-infinity", "now", "epoch", "", "1767225600", "2026-01-01T00:00:00,5Z", "0001-01-01", "9999-12-31"),
]
"""Texts that are timestamps, nearly timestamps, or none."""

_MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DATES = (
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})",
    r"(?P<year>[0-9]{4})-W(?P<week>[0-9]{2})-(?P<weekday>[0-9])",
    r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})(?![^Tt ]|$)",
)
_CLOCKS = (
    r"(?P<hour>[0-9]{2})(:(?P<minute>[0-9]{2})(:(?P<second>[0-9]{2})([.,](?P<part>[0-9]+))?)?)?",
    r"(?P<hour>[0-9]{2})((?P<minute>[0-9]{2})((?P<second>[0-9]{2})([.,](?P<part>[0-9]+))?)?)?",
)
_ZONE = r"( ?(Z|z|(?P<sign>[+-])(?P<ahead>[0-9]{2})(:?(?P<minutes>[0-9]{2}))?))?"
_FORMS = [re.compile(f"{date}([Tt ]{clock}{_ZONE})?") for date in _DATES for clock in _CLOCKS]


def microseconds(text: str) -> int | None:
    """Microseconds since 1970 in UTC, with further decimals cut. None if the text is no timestamp. No zone is UTC."""
    matches = [match.groupdict() for form in _FORMS if (match := form.fullmatch(text))]
    return next((moment for match in matches if (moment := _moment(match)) is not None), None)


def _moment(match: dict[str, str | None]) -> int | None:
    number = {
        name: int(digits) for name, digits in match.items() if digits is not None and name not in ("sign", "part")
    }
    days = _days(number)
    hour, minute, second = (number.get(name, 0) for name in ("hour", "minute", "second"))
    ahead, minutes = number.get("ahead", 0), number.get("minutes", 0)
    if days is None or hour > 23 or minute > 59 or second > 59 or ahead > 23 or minutes > 59:
        return None
    offset = (ahead * 60 + minutes) * (-60 if match.get("sign") == "-" else 60)
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second - offset
    return seconds * 1_000_000 + int(((match.get("part") or "") + "000000")[:6])


def _days(number: dict[str, int]) -> int | None:
    """Days since 1970-01-01, or None for a date that does not exist."""
    year = number["year"]
    if year < 1:
        return None
    if "week" in number:
        return _days_of_week(year, number["week"], number["weekday"])
    month, day = number["month"], number["day"]
    if not 1 <= month <= 12 or not 1 <= day <= _MONTHS[month - 1] + (month == 2 and _leap(year)):
        return None
    return _before(year) + sum(_MONTHS[: month - 1]) + (month > 2 and _leap(year)) + day - 1


def _days_of_week(year: int, week: int, weekday: int) -> int | None:
    """Week 1 has the year's first Thursday. 1970-01-01 was a Thursday."""
    weeks = 53 if _weekday(_before(year)) == 4 or (_leap(year) and _weekday(_before(year)) == 3) else 52
    if not 1 <= week <= weeks or not 1 <= weekday <= 7:
        return None
    fourth = _before(year) + 3
    monday = fourth - (_weekday(fourth) - 1)
    return monday + 7 * (week - 1) + weekday - 1


def _before(year: int) -> int:
    """Days from 1970-01-01 to the first day of the year."""
    past = year - 1
    return past * 365 + past // 4 - past // 100 + past // 400 - 719_162


def _weekday(days: int) -> int:
    """Monday is 1."""
    return (days + 3) % 7 + 1


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)

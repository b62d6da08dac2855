"""Times as numbers, as texts of another form, and in a zone."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import msgspec
import pytest

from ingest_pipeline import Csv, Epoch, Stream, TimeFormat
from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused, SettingsError
from ingest_pipeline.core.time_forms import EPOCH_HINT
from ingest_pipeline.operations.decoders import decoder_of

AT = datetime(2026, 1, 31, 5, 30, 0, 123456, UTC)
SECONDS = 1_769_837_400  # 2026-01-31T05:30:00Z, by `date -d @1769837400`


def decoder(form: Any, naive: NaiveTimestamps = NaiveTimestamps.UTC, check: Any = None) -> JsonDecoder:
    namespace = {} if check is None else {"__post_init__": check}
    event = msgspec.defstruct("Event", [("at", Annotated[datetime, form] | None)], namespace=namespace)
    return JsonDecoder(Stream("event", event), naive)


def read(form: Any, text: str, **options: Any) -> datetime | None:
    """The time, which must be the same alone and in a batch."""
    rows = decoder(form, **options)
    value = b'{"at": %s}' % text.encode()
    row = rows.decode(value)
    assert rows.decode_many([value])[0] in ([row], [])
    return row[0]


@pytest.mark.parametrize(
    ("unit", "text", "time"),
    [
        ("s", str(SECONDS), AT.replace(microsecond=0)),
        ("s", f"{SECONDS}.5", AT.replace(microsecond=500_000)),
        ("s", f"{SECONDS}.123456", AT),
        ("ms", f"{SECONDS}123", AT.replace(microsecond=123_000)),
        ("ms", f"{SECONDS}123.5", AT.replace(microsecond=123_500)),
        ("us", f"{SECONDS}123456", AT),
        ("ns", f"{SECONDS}123456999", AT),
        ("ms", f'"{SECONDS}123"', AT.replace(microsecond=123_000)),
        ("ns", f'"{SECONDS}123456999.5"', AT),
        ("s", f'"{SECONDS}.1234567"', AT),
        ("s", '"-1"', datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("s", "-1", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("d", "20484.5", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("s", "0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("ms", "null", None),
    ],
)
def test_an_epoch_number_is_a_time(unit: Any, text: str, time: datetime | None) -> None:
    assert read(Epoch(unit), text) == time


NO_NUMBERS = ("", " 5", "2026-01-31T05:30:00Z", "1e999999999", "1/3", "1_000", "\uff11", "NaN", "9" * 31)


@pytest.mark.parametrize(
    ("form", "text", "reason"),
    [
        (Epoch("s"), "true", "Expected `int | float | str | null`, got `bool` - at `$.at`"),
        *((Epoch("us"), f'"{text}"', "not a number of microseconds since 1970 - at `$.at`") for text in NO_NUMBERS),
        (Epoch("s"), f'"{SECONDS}123"', "timestamp outside years 1 to 9999 - at `$.at`"),
        (Epoch("s"), f"{SECONDS}123", "timestamp outside years 1 to 9999 - at `$.at`"),
        (Epoch("ns"), "1e400", "Number out of range - at `$.at`"),
        (Epoch("s"), "1e300", "timestamp outside years 1 to 9999 - at `$.at`"),
        (TimeFormat("%d.%m.%Y"), '"2026-01-31"', "not of the form %d.%m.%Y - at `$.at`"),
        (TimeFormat(zone="UTC"), '"soon"', "not an ISO 8601 timestamp - at `$.at`"),
        (TimeFormat("%d.%m.%Y"), "5", "Expected `str | null`, got `int` - at `$.at`"),
    ],
)
def test_another_value_is_refused_without_a_quotation(form: Any, text: str, reason: str) -> None:
    with pytest.raises(RecordRefused) as raised:
        read(form, text)
    assert raised.value.message == reason
    assert decoder(form).decode_many([b'{"at": %s}' % text.encode()]) == ([], [0])


@pytest.mark.parametrize(
    ("text", "hint"), [("1769837400", True), ("1769837400123", True), ("20260131053000250", False)]
)
def test_digits_without_an_epoch_name_the_remedy(text: str, hint: bool) -> None:
    rows = JsonDecoder(Stream("event", msgspec.defstruct("Event", [("at", datetime)])))
    with pytest.raises(RecordRefused) as raised:
        rows.decode(b'{"at": "%s"}' % text.encode())
    assert raised.value.message == "not an ISO 8601 timestamp - at `$.at`" + EPOCH_HINT * hint


BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("form", "text", "time"),
    [
        (TimeFormat("%d.%m.%Y %H:%M:%S", BERLIN), "31.01.2026 06:30:00", "2026-01-31T05:30:00+00:00"),
        (TimeFormat("%d/%m/%y %H:%M:%S,%f"), "31/01/26 05:30:00,5", "2026-01-31T05:30:00.500000+00:00"),
        (TimeFormat("%d.%m.%Y %H:%M %z", BERLIN), "31.01.2026 05:30 +0100", "2026-01-31T04:30:00+00:00"),
        (TimeFormat(zone=BERLIN), "2026-07-01T06:30:00", "2026-07-01T04:30:00+00:00"),
        (TimeFormat(zone=BERLIN), "2026-07-01T06:30:00Z", "2026-07-01T06:30:00+00:00"),
        (TimeFormat(zone=BERLIN), "2026-10-25T02:30:00", "2026-10-25T00:30:00+00:00"),  # twice: the earlier
        (TimeFormat(zone=BERLIN), "2026-03-29T02:30:00", "2026-03-29T01:30:00+00:00"),  # skipped: the offset before
    ],
)
def test_a_text_of_another_form_is_a_time(form: TimeFormat, text: str, time: str) -> None:
    found = read(form, f'"{text}"')
    assert found is not None
    assert found.astimezone(UTC).isoformat() == time


@pytest.mark.parametrize(
    ("form", "text", "day"),
    [
        (Epoch("d"), b"20484", date(2026, 1, 31)),  # by `date -d @$((20484 * 86400))`
        (Epoch("d"), b"-1", date(1969, 12, 31)),
        (Epoch("ms"), b"%d999" % SECONDS, date(2026, 1, 31)),
        (TimeFormat("%d.%m.%Y"), b'"31.01.2026"', date(2026, 1, 31)),
        (TimeFormat("%Y-%m-%d %H:%M", zone="Asia/Tokyo"), b'"2026-01-31 00:30"', date(2026, 1, 31)),
    ],
)
def test_a_date_has_the_same_forms(form: Any, text: bytes, day: date) -> None:
    event = msgspec.defstruct("Event", [("day", Annotated[date, form])])
    checked = msgspec.defstruct("Event", [("day", Annotated[date, form])], namespace={"__post_init__": lambda _: None})
    for kind in (event, checked):
        rows = JsonDecoder(Stream("event", kind), NaiveTimestamps.REJECT)
        value = b'{"day": %s}' % text
        assert rows.decode(value) == (day,)
        assert type(rows.decode(value)[0]) is date
        assert rows.decode_many([value])[0] in ([(day,)], [])
    with pytest.raises(RecordRefused, match=r"at `\$\.day`"):
        JsonDecoder(Stream("event", event), NaiveTimestamps.UTC).decode(b'{"day": 1e300}')


def test_a_naive_text_without_a_zone_follows_the_setting() -> None:
    with pytest.raises(RecordRefused, match="without a time zone"):
        read(TimeFormat("%d.%m.%Y"), '"31.01.2026"', naive=NaiveTimestamps.REJECT)


def test_the_events_own_check_sees_the_time() -> None:
    seen: list[datetime] = []
    rows = decoder(Epoch("s"), check=lambda event: seen.append(event.at))
    assert rows.decode(b'{"at": 0}') == (datetime(1970, 1, 1, tzinfo=UTC),)
    assert seen == [datetime(1970, 1, 1, tzinfo=UTC)]
    assert rows.decode_many([b'{"at": 0}']) == ([], [0])


def test_one_bad_time_of_a_batch_leaves_the_others() -> None:
    rows, odd = decoder(Epoch("s")).decode_many([b'{"at": 0}', b'{"at": 1e300}', b'{"at": 60}'])
    assert rows == [(datetime(1970, 1, 1, tzinfo=UTC),), (datetime(1970, 1, 1, 0, 1, tzinfo=UTC),)]
    assert odd == [1]


def test_a_csv_value_may_be_an_epoch_number() -> None:
    class Line(msgspec.Struct):
        at: Annotated[datetime, Epoch("ms")]
        level: int

    rows = decoder_of(Stream("line", Line, format=Csv()), NaiveTimestamps.UTC, pytest.fail)
    assert rows.decode(b"1500,7") == (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=1.5), 7)


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Epoch("minutes"),  # type: ignore[arg-type]
        lambda: TimeFormat(zone="Europe/Atlantis"),
        lambda: Stream("event", msgspec.defstruct("Event", [("at", Annotated[int, Epoch("s")])])).fields,
    ],
)
def test_a_form_that_cannot_be_used_is_named(declare: Any) -> None:
    with pytest.raises(SettingsError):
        declare()


def test_the_form_belongs_to_the_stream_s_definition() -> None:
    def definition(form: Any) -> str:
        event = msgspec.defstruct("Event", [("at", Annotated[datetime, form])], module=__name__)
        return Stream("event", event).definition()

    assert len({definition(form) for form in (Epoch("s"), Epoch("ms"), TimeFormat("%d"), TimeFormat(zone="UTC"))}) == 4

"""Ways to damage a valid record, and the key, headers and timestamp beside the value."""

import json
import random
from collections.abc import Callable, Iterable

from ingest_pipeline.core.nesting import Nested, Shape
from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.faults.fuzz_records import MAX_MS, Fuzzed, any_json, as_object, good, odd_json
from ingest_pipeline_tests.iso_times import TIMES

Spoil = Callable[[random.Random, Stream], bytes | None]


def _valid(dice: random.Random, stream: Stream) -> bytes:
    return _framed(dice, stream, good(dice, stream.shape).items())


def _framed(dice: random.Random, stream: Stream, fields: Iterable[tuple[str, str]]) -> bytes:
    """A record with this event, which may stand in an array between other events or in a change event."""
    event = as_object(list(fields))
    if stream.many:
        events = [as_object(list(good(dice, stream.shape).items())) for _ in range(dice.randrange(3))]
        events.insert(dice.randint(0, len(events)), event)
        return event if len(events) == 1 and dice.random() < 0.5 else b"[" + b", ".join(events) + b"]"
    if stream.envelope:
        change = b'{"before": null, "op": "%s", "after": %s}' % (dice.choice((b"c", b"r", b"u")), event)
        return change if dice.random() < 0.7 else b'{"schema": {"type": "struct"}, "payload": ' + change + b"}"
    return event


def wrong_field(dice: random.Random, stream: Stream) -> bytes:
    return _framed(dice, stream, _wrong(dice, stream.shape).items())


def _wrong(dice: random.Random, shape: Shape) -> dict[str, str]:
    fields = good(dice, shape)
    item = dice.choice(shape.members)
    if not isinstance(item, Nested):
        fields[item.json_name] = odd_json(dice, item.python_type)
    elif dice.random() < 0.8:
        fields[item.json_name] = as_object(list(_wrong(dice, item.shape).items())).decode("utf-8", "surrogatepass")
    else:
        fields[item.json_name] = any_json(dice)
    return fields


def odd_time(dice: random.Random, stream: Stream) -> bytes:
    fields = good(dice, stream.shape)
    (name,) = (item.json_name for item in stream.fields if item.name == "event_time")
    fields[name] = json.dumps(dice.choice(TIMES))
    return _framed(dice, stream, fields.items())


def missing_field(dice: random.Random, stream: Stream) -> bytes:
    fields = good(dice, stream.shape)
    del fields[dice.choice(list(fields))]
    return _framed(dice, stream, fields.items())


def repeated_and_unknown(dice: random.Random, stream: Stream) -> bytes:
    """Duplicate and foreign names, in any order."""
    fields = [*good(dice, stream.shape).items(), *good(dice, stream.shape).items(), ("foreign", any_json(dice))]
    for nested in stream.shape.nested:
        inside = [*good(dice, nested.shape).items(), ("föreign", any_json(dice))]
        fields.append((nested.json_name, as_object(inside).decode("utf-8", "surrogatepass")))
    dice.shuffle(fields)
    return _framed(dice, stream, fields)


def cut(dice: random.Random, stream: Stream) -> bytes:
    value = _valid(dice, stream)
    return value[: dice.randrange(len(value))]


def changed_bytes(dice: random.Random, stream: Stream) -> bytes:
    value = bytearray(_valid(dice, stream))
    for _ in range(dice.randint(1, 3)):
        index = dice.randrange(len(value))
        change = dice.randrange(4)
        if change == 0:
            value[index] ^= 1 << dice.randrange(8)
        elif change == 1:
            value[index:index] = dice.choice((b"\x00", b"\xff", b"\xc3", b'"', b"\\", b"}", dice.randbytes(1)))
        elif change == 2:
            del value[index : index + dice.randint(1, 4)]
        else:
            value[index:index] = value[index : index + 8]
        value = value or bytearray(b" ")
    return bytes(value)


def wrapped(dice: random.Random, stream: Stream) -> bytes:
    value = _valid(dice, stream)
    return dice.choice(
        (
            b"\xef\xbb\xbf" + value,
            b" \r\n\t" + value + b"\n",
            value + b"\x00",
            value + value,
            b"[" + value + b"]",
            b"\x00\x00\x00\x00\x01" + value,
            value.decode("utf-8", "replace").encode("utf-16"),
            json.dumps(value.decode("utf-8", "replace")).encode(),
        )
    )


def no_object(dice: random.Random, stream: Stream) -> bytes:
    return any_json(dice).encode("utf-8", "surrogatepass")


def random_bytes(dice: random.Random, stream: Stream) -> bytes:
    return dice.randbytes(dice.choice((1, 2, 10, 300)))


def without_event(dice: random.Random, stream: Stream) -> bytes:
    return dice.choice(
        (b"[]", b"null", b'{"op": "d", "after": null}', b'{"op": "t"}', b'{"op": 1}', b'{"payload": null}')
    )


def empty(dice: random.Random, stream: Stream) -> bytes:
    return b""


def tombstone(dice: random.Random, stream: Stream) -> None:
    return None


SPOILT: dict[Spoil, int] = {
    wrong_field: 25,
    odd_time: 12,
    missing_field: 4,
    repeated_and_unknown: 10,
    cut: 8,
    changed_bytes: 20,
    wrapped: 8,
    no_object: 5,
    random_bytes: 3,
    without_event: 2,
    empty: 2,
    tombstone: 3,
}
HEALTHY_SHARE, RAW_SHARE = 0.5, 0.003


def records(seed: str, stream: Stream, count: int, partitions: int) -> list[Fuzzed]:
    """The same headers for the same seed."""
    dice = random.Random(seed)
    return [_record(dice, stream, partitions) for _ in range(count)]


def _record(dice: random.Random, stream: Stream, partitions: int) -> Fuzzed:
    spoil: Spoil = _valid
    if dice.random() > HEALTHY_SHARE:
        (spoil,) = dice.choices(list(SPOILT), list(SPOILT.values()))
    kind = "healthy" if spoil is _valid else spoil.__name__
    record = Fuzzed(kind, spoil(dice, stream), key=_key(dice), headers=_headers(dice), timestamp_ms=_timestamp_ms(dice))
    record.partition = dice.randrange(partitions)
    if record.value is not None and dice.random() < RAW_SHARE:
        names = (b"\xff\xfe", b"a\0b", b"\xed\xa0\x80", b"trace", b"")
        record.raw_headers = [
            (dice.choice(names), dice.choice((None, b"", b"\xff"))) for _ in range(dice.randint(1, 4))
        ]
        record.headers, record.timestamp_ms, record.key = None, None, record.key or b"key"
    return record


def _key(dice: random.Random) -> bytes | None:
    return dice.choice((None, b"", b"key", b"\x00", b"\xff\xfe", dice.randbytes(dice.choice((4, 4, 2000)))))


def _headers(dice: random.Random) -> list[tuple[str, bytes | None]] | None:
    if dice.random() < 0.6:
        return None
    if dice.random() < 0.01:
        return [(f"bomb-{number}", b"x") for number in range(1000)]
    if dice.random() < 0.01:
        return [("large", dice.randbytes(50_000)), ("n" * 5000, None)]
    names = ("trace", "trace", "", "naïve 😀", "null", "a" * 300)
    return [(dice.choice(names), dice.choice((None, b"", b"1", b"\xff\x00"))) for _ in range(dice.randint(1, 4))]


def _timestamp_ms(dice: random.Random) -> int | None:
    """Mostly None. The broker also accepts microseconds, nanoseconds and values outside any calendar."""
    if dice.random() < 0.6:
        return None
    now = 1_767_225_600_000
    odd = (-1, 1, now, now * 1000, now * 1_000_000, 2**62, 2**63 - 1, MAX_MS, MAX_MS + 1)
    return dice.choice((dice.randrange(1, now), dice.choice(odd)))

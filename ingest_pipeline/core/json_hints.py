"""The remedy for values other than a JSON object. Only the path of refused records calls the module."""

import msgspec

from .reasons import UNDECODABLE

_NOT_AN_OBJECT = ("JSON is malformed", "Expected `object")
_ARRAY = {
    "Expected `object`, got `array`": "the value is a list, whose elements many=True stores as rows",
    "Expected `object | null`, got `array`": "the value is a list, and an envelope holds one event",
}
_NO_TEXT = frozenset(range(1, 32)) - frozenset(b"\t\n\r\x1e")
"""Bytes that no text begins with. Protobuf's messages and most of Avro's records have one among their first two."""
_DELIMITERS = {b",": "Csv()", b";": 'Csv(delimiter=";")', b"\t": 'Csv(delimiter="\\t")'}


def explained(reason: str, value: bytes) -> str:
    """The reason of a refused JSON value, with its apparent format."""
    if value.startswith(b"\0"):
        return "starts with a zero byte, as a schema registry's format does: format=Avro(), Protobuf() or JsonSchema()"
    if reason in _ARRAY:
        return f"{reason}: {_ARRAY[reason]}"
    if reason.startswith(_NOT_AN_OBJECT) and " - at `$" not in reason and (csv := _csv(value)):
        return f"{reason}: the value looks like a line of CSV, which format={csv} reads"
    if reason.startswith("JSON is malformed") and not _NO_TEXT.isdisjoint(value[:2]):
        return f"{reason}: the value is binary. format=Avro() or Protobuf() reads it behind a schema registry's id"
    return reason


def _csv(value: bytes) -> str | None:
    """The format that fits a text with a delimiter. None for JSON and for bytes that are no text."""
    if value.lstrip()[:1] in (b"{", b"[", b"") or _is_json(value):
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    if not text.replace("\t", " ").rstrip("\r\n").isprintable():
        return None
    return max(_DELIMITERS.items(), key=lambda item: value.count(item[0]))[1] if set(value) & set(b",;\t") else None


def _is_json(value: bytes) -> bool:
    try:
        msgspec.json.decode(value)
    except UNDECODABLE:
        return False
    return True

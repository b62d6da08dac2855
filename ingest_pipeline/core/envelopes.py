"""Envelopes around an event: Debezium's change events and CloudEvents.

An event takes a part of its envelope as a field. The field's key in the record is `__op`, `__ts_ms` or `__source_lsn`
for Debezium, as in Debezium's own flattening, and `ce_id` for CloudEvents, as in the headers of its Kafka binding.
"""

from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from .choices import Envelope
from .errors import RecordDeleted, RecordRefused, RecordSkipped
from .json_hints import explained
from .reasons import UNDECODABLE, reason_of
from .stream import Stream

_STORED = frozenset("cru")
"""Debezium's operations with a new version of a row: create, read by a snapshot, update."""
_DELETED = "d"
_DEBEZIUM, _SOURCE, _CLOUD = "__", "__source_", "ce_"
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
Members = Mapping[str, Any]


class EnvelopeReader:
    """Takes the events of one stream out of their envelopes."""

    def __init__(self, stream: Stream) -> None:
        self._debezium = stream.envelope == Envelope.DEBEZIUM
        prefix = _DEBEZIUM if self._debezium else _CLOUD
        names = [member.json_name for table in stream.tables for member in table.shape.members]
        names += [stream.route.field] if stream.route is not None else []
        self._added = [name for name in dict.fromkeys(names) if name.startswith(prefix)]

    def text(self, value: bytes) -> bytes:
        """The event's JSON text, with the declared parts of the envelope as additional keys.

        Raises:
            RecordSkipped: the envelope has no event to store, such as the deletion of a row.
            RecordRefused: the value is no such envelope.
        """
        try:
            members = _members(value)
        except RecordSkipped:
            raise
        except RecordRefused as refused:
            raise RecordRefused(explained(refused.message, value), stage=refused.stage) from None
        if self._debezium and "payload" in members and "op" not in members:  # Kafka Connect's JSON with its schema
            members = _members(members["payload"])
        members = {name: raw for name, raw in members.items() if bytes(raw) != b"null"}
        decoded = {name: _text(members.get(name)) for name in ("op", "specversion", "data_base64")}
        event = bytes(self._event(members, decoded)).strip()
        if not event.startswith(b"{"):
            raise RecordRefused("the envelope's event is not a JSON object")
        added = self._parts(members, _members)
        if not added:
            return event
        pairs = b",".join(msgspec.json.encode(name) + b":" + bytes(raw) for name, raw in added.items())
        return b"{" + pairs + (b"," if event[1:].lstrip() != b"}" else b"") + event[1:]

    def mapping(self, record: Members) -> Members:
        """As `text`, for a record of another format."""
        event = self._event(record, record)
        if not isinstance(event, Mapping):
            raise RecordRefused("the envelope's event is not a record")
        return {**self._parts(record, dict), **event}

    def _event(self, members: Members, decoded: Members) -> Any:
        """The event. `decoded`: the members "op", "specversion" and "data_base64" as Python values."""
        if not self._debezium:
            if decoded.get("specversion") is None:
                raise RecordRefused("no CloudEvent: there is no `specversion`")
            if "data" not in members and (encoded := decoded.get("data_base64")) is not None:
                return _from_base64(encoded)
            if "data" not in members:
                raise RecordRefused("the CloudEvent has no `data`")
            return members["data"]
        operation = decoded.get("op")
        if operation is None:
            raise RecordRefused("no Debezium envelope: there is no `op`")
        if operation == _DELETED:
            raise RecordDeleted("the change event is about a deleted row")
        if operation not in _STORED:
            raise RecordSkipped("the change event stores no row")
        if members.get("after") is None:
            raise RecordRefused("the change event has no `after`")
        return members["after"]

    def _parts(self, members: Members, inner: Callable[[Any], Members]) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        source: Members | None = None
        for name in self._added:
            if name.startswith(_SOURCE) and self._debezium:
                source = inner(members["source"]) if source is None and members.get("source") is not None else source
                part = (source or {}).get(name.removeprefix(_SOURCE))
            else:
                part = members.get(name.removeprefix(_DEBEZIUM if self._debezium else _CLOUD))
            if part is not None:
                parts[name] = part
        return parts


def _members(value: bytes | msgspec.Raw) -> Members:
    members: Members | None
    try:
        members = _objects.decode(value)
    except UNDECODABLE as error:
        raise RecordRefused(reason_of(error)) from None
    if members is None:
        raise RecordSkipped("the envelope is null")
    return members


def _from_base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise RecordRefused("the CloudEvent's `data_base64` is not base64") from None


def _text(raw: msgspec.Raw | None) -> str | None:
    """A JSON string's text. None for another value."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=str)
    except (msgspec.MsgspecError, UnicodeError):
        return None

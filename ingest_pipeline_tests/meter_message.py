"""A message class as protoc would generate it from this file:

syntax = "proto3";
message Other { string name = 1; }
message Meter {
  message Place { double lat = 1; double lon = 2; }
  enum Colour { RED = 0; BLUE = 1; }
  string device_id = 1; int64 count = 2; optional double level = 3; bytes raw = 4; Colour colour = 5;
  google.protobuf.Timestamp at = 6; Place place = 7; repeated int32 series = 8; map<string, int64> labels = 9;
  google.protobuf.StringValue note = 10; string serial = 11;
}
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2

_FIELD = descriptor_pb2.FieldDescriptorProto
_MESSAGE = _FIELD.TYPE_MESSAGE


def _file() -> descriptor_pb2.FileDescriptorProto:
    proto = descriptor_pb2.FileDescriptorProto(name="meter.proto", package="tests", syntax="proto3")
    proto.dependency.extend([timestamp_pb2.DESCRIPTOR.name, wrappers_pb2.DESCRIPTOR.name])
    proto.message_type.add(name="Other").field.add(name="name", number=1, type=_FIELD.TYPE_STRING, label=1)
    meter = proto.message_type.add(name="Meter")
    place = meter.nested_type.add(name="Place")
    for number, name in enumerate(("lat", "lon"), 1):
        place.field.add(name=name, number=number, type=_FIELD.TYPE_DOUBLE, label=1)
    entry = meter.nested_type.add(name="LabelsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=1)
    entry.field.add(name="value", number=2, type=_FIELD.TYPE_INT64, label=1)
    colour = meter.enum_type.add(name="Colour")
    colour.value.add(name="RED", number=0)
    colour.value.add(name="BLUE", number=1)
    meter.oneof_decl.add(name="_level")
    fields: list[tuple[str, Any, dict[str, Any]]] = [
        ("device_id", _FIELD.TYPE_STRING, {}),
        ("count", _FIELD.TYPE_INT64, {}),
        ("level", _FIELD.TYPE_DOUBLE, {"proto3_optional": True, "oneof_index": 0}),
        ("raw", _FIELD.TYPE_BYTES, {}),
        ("colour", _FIELD.TYPE_ENUM, {"type_name": ".tests.Meter.Colour"}),
        ("at", _MESSAGE, {"type_name": ".google.protobuf.Timestamp"}),
        ("place", _MESSAGE, {"type_name": ".tests.Meter.Place"}),
        ("series", _FIELD.TYPE_INT32, {"label": 3}),
        ("labels", _MESSAGE, {"type_name": ".tests.Meter.LabelsEntry", "label": 3}),
        ("note", _MESSAGE, {"type_name": ".google.protobuf.StringValue"}),
        ("serial", _FIELD.TYPE_STRING, {}),
    ]
    for number, (name, kind, options) in enumerate(fields, 1):
        meter.field.add(**{"name": name, "number": number, "type": kind, "label": 1} | options)
    return proto


_pool = descriptor_pool.Default()
_pool.Add(_file())
METER: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName("tests.Meter"))
OTHER: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName("tests.Other"))
PLACE: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName("tests.Meter.Place"))

"""An Avro schema → the fields of an event for records of the schema."""

import json
from collections.abc import Mapping
from typing import Any

from ..core.errors import SettingsError
from ..core.inference import Inferred, InferredField, fitted
from ..core.inferred_names import field_names
from .registry import WriterSchema

_KINDS = {
    "string": "str",
    "enum": "str",
    "boolean": "bool",
    "int": "int",
    "long": "int",
    "float": "float",
    "double": "float",
    "bytes": "bytes",
    "fixed": "bytes",
    "array": "list",
    "map": "dict",
}
_LOGICAL = {"date": "date", "decimal": "Decimal", "uuid": "UUID"}
_TIMES = ("timestamp-", "local-timestamp-")


def fields_of_schema(writer: WriterSchema) -> Inferred:
    """The fields of a record's schema. Raises SettingsError for another schema."""
    named: dict[str, Any] = {}
    for reference in writer.references:
        _name_types(json.loads(reference), named)
    schema = json.loads(writer.text)
    _name_types(schema, named)
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise SettingsError(f"{writer} is not a record")
    left_out: list[str] = []
    return fitted(Inferred(_fields(schema, named, (), left_out), left_out))


def _fields(
    record: Mapping[str, Any], named: Mapping[str, Any], prefix: tuple[str, ...], left_out: list[str]
) -> tuple[InferredField, ...]:
    declared = {field["name"]: field for field in record["fields"]}
    fields = []
    for key, name in field_names(declared, prefix).items():
        branches = branches_of(declared[key]["type"], named)
        kinds = [branch for branch in branches if branch != "null"]
        kind = _kind(kinds[0]) if len(kinds) == 1 else ""
        path = (*prefix, name)
        inner: tuple[InferredField, ...] = ()
        if kind == "object":
            inner = _fields(
                kinds[0], {**named, kinds[0]["name"]: "map"}, path, left_out
            )  # a record in itself is a dict
            kind = "object" if inner else "dict"
        if not kind:
            left_out.append(".".join((*prefix, key)))
            continue
        nullable = len(kinds) < len(branches)
        optional = nullable and declared[key].get("default", "") is None
        fields.append(InferredField(name, key, kind, nullable=nullable, optional=optional, fields=inner))
    return tuple(fields)


def branches_of(kind: Any, named: Mapping[str, Any]) -> list[Any]:
    """The types of a union, or the single type. Names of types are resolved."""
    branches = kind if isinstance(kind, list) else [kind]
    return [named.get(branch, branch) if isinstance(branch, str) else branch for branch in branches]


def _kind(schema: Any) -> str:
    """The kind of an InferredField. "" for a type without a column."""
    kind = schema["type"] if isinstance(schema, dict) else schema
    logical = schema.get("logicalType", "") if isinstance(schema, dict) else ""
    if isinstance(kind, dict):
        return _kind(kind)
    if kind == "record":
        return "object"
    if logical.startswith(_TIMES):
        return "datetime"
    if logical.startswith("time-"):
        return "str"
    if logical == "duration":
        return ""
    return _LOGICAL.get(logical, "") or _KINDS.get(kind, "")


def _name_types(schema: Any, named: dict[str, Any], namespace: str = "") -> None:
    """Add the named types of a schema, by their names with and without the namespace."""
    if isinstance(schema, list):
        for branch in schema:
            _name_types(branch, named, namespace)
    if not isinstance(schema, dict):
        return
    if "name" in schema and "type" in schema:
        space = schema.get("namespace", namespace)
        named[schema["name"]] = named[f"{space}.{schema['name']}"] = schema
        namespace = space
    for inner in ("type", "items", "values"):
        _name_types(schema.get(inner), named, namespace)
    for field in schema.get("fields", ()):
        _name_types(field["type"], named, namespace)

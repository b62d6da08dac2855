"""Fields declared in YAML → a msgspec Struct."""

from __future__ import annotations

import ast
import copy
import keyword
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from ...core.errors import SettingsError
from ...core.fields import AsJson, field_of, is_struct, unwrap
from ...core.inferred_names import camel_case
from ...core.time_forms import Epoch, TimeForm, TimeFormat

OBJECT = "object"
_TYPES: dict[str, Any] = {
    kind.__name__: kind for kind in (str, int, float, bool, datetime, date, Decimal, UUID, dict, list, bytes)
} | {"Any": Any, OBJECT: object}
_META = ("description", "gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length")
MODULE = "defs_yaml"
"""The module of the Structs. Their fields alone describe the Structs, wherever the YAML lies."""


class TimeModel(BaseModel):
    """How a time is written, if not in ISO 8601."""

    model_config = ConfigDict(extra="forbid")

    epoch: Literal["d", "s", "ms", "us", "ns"] | None = Field(None, description="A number of these units since 1970.")
    format: str | None = Field(None, description="A pattern of Python's strptime.")
    zone: str | None = Field(None, description="The IANA zone of texts without a zone.")


class FieldModel(BaseModel):
    """A field of the event: a column of the table."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(
        OBJECT,
        description="str, int, float, bool, datetime, date, Decimal, UUID, bytes, list, dict, such as list[str],"
        " dict[str, float] or str | None. With `fields`: object (a column for each of them), dict (one jsonb column) or"
        " list (a jsonb list of such objects).",
    )
    key: str | None = Field(None, description="The key in the record, if not the field's name.")
    default: Any = Field(None, description="The value of an absent key. Without a default the key is required.")
    time: TimeModel | None = Field(None, description="How a datetime is written, if not in ISO 8601.")
    fields: dict[str, str | FieldModel] | None = Field(None, description="The fields of an object.")
    description: str | None = Field(None, description="The column's description in Dagster.")
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    multiple_of: float | None = None
    pattern: str | None = None
    min_length: int | None = None
    max_length: int | None = None


Fields = dict[str, str | FieldModel]


def struct_of(name: str, fields: Mapping[str, str | FieldModel], description: str = "") -> type[msgspec.Struct]:
    """A Struct with these fields.

    Raises:
        SettingsError: `where["path"]` has the keys that lead to the fault below `fields`.
    """
    members = []
    for field, declared in fields.items():
        model = FieldModel.model_validate({"type": declared}) if isinstance(declared, str) else declared
        try:
            members.append((field, *_member(field, model)))
            if not is_struct(unwrap(members[-1][1])[0]):
                column = field_of(msgspec.structs.fields(msgspec.defstruct(name, members[-1:]))[0], name)
                msgspec.json.Decoder(column.decode_type)
        except SettingsError as error:
            raise SettingsError(error.message, path=(field, *error.where.get("path", ()))) from None
        except (TypeError, ValueError) as error:  # a constraint of another type
            raise SettingsError(f"field {field}: {error}", path=(field,)) from None
    return msgspec.defstruct(name, members, module=MODULE, namespace={"__doc__": description or None}, kw_only=True)


def _member(name: str, model: FieldModel) -> tuple[Any, Any]:
    """(type, msgspec field)."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise SettingsError(f"field {name!r}: a name is a letter, then letters, digits and _. Its key may differ: key")
    declared, nullable = _type_of(model, name)
    if metas := {meta: getattr(model, meta) for meta in _META if getattr(model, meta) is not None}:
        declared = Annotated[declared, msgspec.Meta(**_whole_numbers(metas))]
    if model.time is not None:
        declared = Annotated[declared, _time_form(model.time)]
    declared = declared | None if nullable else declared
    options: dict[str, Any] = {} if model.key is None else {"name": model.key}
    if "default" in model.model_fields_set:
        options |= _default(name, model, declared)
    return declared, msgspec.field(**options)


def _type_of(model: FieldModel, name: str) -> tuple[Any, bool]:
    """(the type without None, whether None is allowed)."""
    declared, _, nullable = unwrap(_parsed(model.type))
    if model.fields is None:
        if declared is object:
            raise SettingsError(f"field {name}: an object has fields, and a field of another kind has a type")
        return declared, nullable
    if declared not in (object, dict, list):
        raise SettingsError(f"field {name}: with fields, the type is object, dict or list, not {model.type!r}")
    try:
        struct: Any = struct_of(camel_case(name), model.fields, model.description or "")
    except SettingsError as error:
        raise SettingsError(error.message, path=("fields", *error.where.get("path", ()))) from None
    if declared is list:
        return list[struct], nullable
    return (Annotated[struct, AsJson] if declared is dict else struct), nullable


def _parsed(text: str) -> Any:
    """The type of a text, for example of `list[str] | None`."""
    try:
        return _type_at(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError):
        raise SettingsError(f"type {text!r} is not a type, such as str, list[str] or float | None") from None


def _type_at(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
        case ast.Name(id=name):
            near = get_close_matches(name, _TYPES, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise SettingsError(f"there is no type {name!r}. Types: {', '.join(_TYPES)}.{hint}")
        case ast.Constant(value=None):
            return None
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _type_at(left) | _type_at(right)
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return list[_type_at(item)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, value])):
            return dict[_type_at(key), _type_at(value)]  # type: ignore[misc]
    raise ValueError


def _time_form(model: TimeModel) -> TimeForm:
    if model.epoch is None:
        return TimeFormat(model.format or "", model.zone or "")
    if model.format or model.zone:
        raise SettingsError("time: an epoch has no format and no zone", path=("time",))
    return Epoch(model.epoch)


def _whole_numbers(metas: dict[str, Any]) -> dict[str, Any]:
    """Whole bounds as int. typing caches Annotated by equality, and 0 and 0.0 would give a stream two definitions."""
    return {
        name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound for name, bound in metas.items()
    }


def _default(name: str, model: FieldModel, declared: Any) -> dict[str, Any]:
    try:
        value = model.default if model.time is not None else msgspec.convert(model.default, declared)
    except msgspec.ValidationError as error:
        raise SettingsError(f"field {name}: default: {error}", path=("default",)) from None
    if isinstance(value, list | dict):
        return {"default_factory": partial(copy.deepcopy, value) if value else type(value)}
    return {"default": value}

"""The attributes of a stream in YAML → a Stream, with the names and meanings of Stream's own."""

import dataclasses
import importlib
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from ...core.errors import SettingsError
from ...core.formats import Format
from ...core.inferred_names import camel_case
from ...core.route import Route
from ...core.stream import Stream
from ...settings import settings_of
from ...settings.declared import SETTINGS
from ...settings.variables import variable
from .struct import Fields, struct_of

FORMATS = {re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower(): kind for kind in get_args(Format)}
_FUNCTION = "module:function"
_Duration = Annotated[timedelta, WithJsonSchema({"type": ["number", "string"]})]
_Import = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
_STRICT = ConfigDict(extra="forbid")


class TableModel(BaseModel):
    """A table of a route with fields of its own."""

    model_config = _STRICT

    table: str
    fields: Fields = Field(description="The fields of the table's events, all of them.")


class RouteModel(BaseModel):
    """More tables, by the value of a field."""

    model_config = _STRICT

    field: str = Field(description="A key of the JSON object, at its top level.")
    tables: dict[str, str | TableModel] = Field(description="Text → table.")
    others: Literal["dead-letter", "skip", "table"] = Field("dead-letter", description="What becomes of other records.")


@cache
def attributes_model() -> type[BaseModel]:
    """The pydantic model of the attributes, from Stream's own fields."""
    described = _descriptions()
    members: dict[str, Any] = {}
    types = get_type_hints(Stream)
    for field in dataclasses.fields(Stream):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.name != "event":
            members[field.name] = (
                _yaml_type(field.name, types[field.name]),
                Field(... if required else None, description=described.get(field.name)),
            )
    members["fields"] = (Fields, Field(description="The event's fields by name: their type, or their attributes."))
    members["description"] = (str, Field("", description="The asset's description."))
    return create_model("KafkaToPostgresAttributes", __config__=_STRICT, **members)


def stream_of(attributes: BaseModel) -> Stream:
    """The stream declared by the attributes.

    Raises:
        SettingsError: `where["path"]` has the keys down to the fault.
    """
    options = {name: getattr(attributes, name) for name in attributes.model_fields_set}
    fields, description = options.pop("fields"), options.pop("description", "")
    name = camel_case(options["name"])
    try:
        event = struct_of(name, fields, description)
    except SettingsError as error:
        raise SettingsError(error.message, path=("fields", *error.where["path"])) from None
    if isinstance(options.get("settings"), BaseModel):
        options["settings"] = options["settings"].model_dump(exclude_unset=True)
    if "format" in options:
        options["format"] = _format(options["format"])
    if "key_type" in options:
        options["key_type"] = {"bytes": bytes, "str": str}[options["key_type"]]
    if options.get("route") is not None:
        options["route"] = _route(options["route"])
    for option, hint in get_type_hints(Stream).items():
        if option in options and _is_function(hint):
            options[option] = _imported(option, options[option])
    try:
        stream = Stream(event=event, **options)
        settings_of([stream], {})
    except SettingsError as error:
        raise SettingsError(error.message, path=_path(error.message, name, fields, options)) from None
    return stream


def _yaml_type(name: str, hint: Any) -> Any:
    """The type of an option's value in YAML."""
    if name == "format":
        names: Any = Literal[tuple(FORMATS)]
        return names | dict[names, dict[str, Any]]
    if name == "settings":
        texts = {
            key: (bool | int | float | str, Field(None, description=SETTINGS[key].description)) for key in SETTINGS
        }
        return create_model("Settings", __config__=_STRICT, **texts)  # type: ignore[call-overload]
    if name == "key_type":
        return Literal["bytes", "str"]
    if name == "route":
        return RouteModel | None
    if _is_function(hint):
        return _Import
    return _Duration if timedelta in get_args(hint) else hint


def _is_function(hint: Any) -> bool:
    return any(get_origin(part) is Callable for part in get_args(hint))


def _format(declared: str | Mapping[str, Mapping[str, Any]]) -> Any:
    if len(declared := {declared: {}} if isinstance(declared, str) else declared) != 1:
        raise SettingsError(f"format: one of {', '.join(FORMATS)}", path=("format",))
    [(name, given)] = declared.items()
    options = dict(given)
    kind = FORMATS[name]
    names = [field.name for field in dataclasses.fields(kind)]
    for option in options:
        if option not in names:
            raise SettingsError(
                f"format {name} has no {option!r}, only {', '.join(names) or 'its name'}", path=("format", name)
            )
    if "message" in options:
        options["message"] = _imported("message", options["message"], ("format", name))
    try:
        return kind(**options)
    except SettingsError as error:
        raise SettingsError(error.message, path=("format", name)) from None
    except TypeError:
        raise SettingsError(f"format {name} needs {', '.join(names)}", path=("format",)) from None


def _route(declared: RouteModel) -> Route:
    tables: dict[str, str | tuple[str, type[msgspec.Struct]]] = {}
    for text, target in declared.tables.items():
        if isinstance(target, str):
            tables[text] = target
            continue
        try:
            tables[text] = target.table, struct_of(camel_case(target.table.replace(".", "_")), target.fields)
        except SettingsError as error:
            path = ("route", "tables", text, "fields", *error.where["path"])
            raise SettingsError(error.message, path=path) from None
    return Route(declared.field, tables, declared.others)


def _imported(option: str, import_path: str, path: tuple[str, ...] = ()) -> Any:
    module, _, name = import_path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"{option}: {import_path!r} is not {_FUNCTION} ({error})", path=(*path, option)) from None


def _path(message: str, struct: str, fields: Fields, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of the part named by a message of Stream or of the settings."""
    for setting in options.get("settings", ()):
        if re.search(rf"_{variable(setting)}\b|'{setting}'", message):
            return ("settings", setting)
    for field in fields:
        if re.search(rf"\b{struct}\.{field}\b", message):
            return ("fields", field)
    return next(
        ((option,) for option in options if option != "name" and re.search(rf"\b{option}\b", message)), ("name",)
    )


def _descriptions() -> dict[str, str]:
    """Option → its text in Stream's docstring."""
    block = (Stream.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    items = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", block, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in items}

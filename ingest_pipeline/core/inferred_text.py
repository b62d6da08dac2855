"""Inferred fields → the text of a Struct in Python, or of a defs.yaml."""

import keyword
from collections.abc import Iterable, Iterator

from .inference import Inferred, InferredField
from .inferred_names import camel_case

_TYPE_MODULES = {"datetime": "datetime", "date": "datetime", "Decimal": "decimal", "UUID": "uuid"}
AVRO, JSON_SCHEMA = "Avro", "JsonSchema"
_YAML_WORDS = {"on", "off", "yes", "no", "y", "n", "true", "false", "null"}
_CLASSES = {"Annotated", "Struct", "Stream", "Epoch", "Decimal", "UUID", "Avro", "JsonSchema", *keyword.kwlist}


def python_text(stream: str, topic: str, inferred: Inferred, record_format: str = "") -> str:
    classes: list[str] = []
    fields = list(_all_fields(inferred.fields))
    taken = {*_CLASSES, *(item.name for item in fields)}  # a field with a default hides the class of its name
    event = _class(camel_case(stream), inferred.fields, taken, classes)
    options = [quoted(stream), event, *([f"topic={quoted(topic)}"] if topic != stream else [])]
    options += [f"format={record_format}()"] if record_format else []
    options += [f'extra_column="{inferred.extra_column}"'] if inferred.left_out and record_format != AVRO else []
    imports = sorted(_imports(fields))
    ours = sorted(
        {"Stream", *(["Epoch"] if any(item.epoch for item in fields) else []), *filter(None, [record_format])}
    )
    names = "Struct, field" if any(item.name != item.key for item in fields) else "Struct"
    head = [*imports, *([""] if imports else []), f"from msgspec import {names}", ""]
    head += [f"from ingest_pipeline import {', '.join(ours)}", "", ""]
    return "\n".join([*head, *classes, f"STREAMS = [Stream({', '.join(options)})]", ""])


def yaml_text(stream: str, topic: str, inferred: Inferred, record_format: str = "") -> str:
    lines = ["type: ingest_pipeline.KafkaToPostgres", "", "attributes:", f"  name: {quoted(stream)}"]
    lines += [f"  topic: {quoted(topic)}"] if topic != stream else []
    lines += [f"  format: {'avro' if record_format == AVRO else 'json_schema'}"] if record_format else []
    lines += [f"  extra_column: {inferred.extra_column}"] if inferred.left_out and record_format != AVRO else []
    return "\n".join(
        [*lines, "  fields:" if inferred.fields else "  fields: {}", *_yaml_fields(inferred.fields, "    "), ""]
    )


def quoted(text: str) -> str:
    """The text in double quotes, for Python and for YAML."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def _class(name: str, fields: tuple[InferredField, ...], taken: set[str], classes: list[str]) -> str:
    """Append the text of a Struct, behind the Structs of its fields. Returns its name."""
    name = next(text for text in (name, *(f"{name}{number}" for number in range(2, 10_000))) if text not in taken)
    taken.add(name)
    lines = [f"class {name}(Struct, kw_only=True):"]
    for item in fields:
        kind = _class(camel_case(item.name), item.fields, taken, classes) if item.fields else item.kind
        kind = f'Annotated[datetime, Epoch("{item.epoch}")]' if item.epoch else kind
        kind += " | None" if item.nullable else ""
        renamed = f"name={quoted(item.key)}" if item.name != item.key else ""
        default = "default=None" if item.optional and renamed else "None" if item.optional else ""
        value = f"field({', '.join(filter(None, [renamed, default]))})" if renamed else default
        lines.append(f"    {item.name}: {kind}" + (f" = {value}" if value else ""))
    classes += [*lines, "", ""] if fields else [*lines, "    pass", "", ""]
    return name


def _imports(fields: Iterable[InferredField]) -> Iterator[str]:
    fields = list(fields)
    modules: dict[str, set[str]] = {}
    for item in fields:
        if item.kind in _TYPE_MODULES:
            modules.setdefault(_TYPE_MODULES[item.kind], set()).add(item.kind)
    if any(item.epoch for item in fields):
        modules["typing"] = {"Annotated"}
    return (f"from {module} import {', '.join(sorted(names))}" for module, names in modules.items())


def _yaml_fields(fields: Iterable[InferredField], indent: str) -> Iterator[str]:
    for item in fields:
        name = quoted(item.name) if item.name in _YAML_WORDS else item.name
        kind = item.kind + (" | None" if item.nullable else "")
        options = {} if item.name == item.key else {"key": quoted(item.key)}
        options |= {"default": "null"} if item.optional else {}
        options |= {"time": f"{{epoch: {item.epoch}}}"} if item.epoch else {}
        if item.fields:
            yield f"{indent}{name}:"
            options = {**({"type": kind} if item.nullable else {}), **options}
            yield from (f"{indent}  {option}: {text}" for option, text in options.items())
            yield f"{indent}  fields:"
            yield from _yaml_fields(item.fields, indent + "    ")
        elif options:
            kind = f'"{kind}"' if "[" in kind else kind
            pairs = [f"{option}: {text}" for option, text in {"type": kind, **options}.items()]
            yield f"{indent}{name}: {{{', '.join(pairs)}}}"
        else:
            yield f"{indent}{name}: {kind}"


def _all_fields(fields: Iterable[InferredField]) -> Iterator[InferredField]:
    for item in fields:
        yield item
        yield from _all_fields(item.fields)

"""Nested Structs of an event: declared and decoded as a tree, stored as a flat row.

The leaves of the tree are the columns. Field `child` of the Struct in field `parent` is column `parent_child`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import msgspec

from .errors import SettingsError
from .fields import AsJson, Field, field_of, is_struct, unwrap


@dataclass(frozen=True, slots=True)
class Nested:
    """A field with a Struct. The Struct's fields are columns.

    Attributes:
        nullable: whether null is allowed. All columns below are null then.
    """

    attribute: str
    json_name: str
    nullable: bool
    default: Any
    default_factory: Any
    shape: Shape

    @property
    def required(self) -> bool:
        """Whether a record without the field is refused."""
        return self.default is msgspec.NODEFAULT and self.default_factory is msgspec.NODEFAULT


@dataclass(frozen=True, slots=True)
class Shape:
    """A Struct and its fields, in declared order."""

    struct: type[msgspec.Struct]
    members: tuple[Field | Nested, ...]

    @property
    def leaves(self) -> tuple[Field, ...]:
        """The columns, in a row's order."""
        leaves: list[Field] = []
        for member in self.members:
            leaves += member.shape.leaves if isinstance(member, Nested) else (member,)
        return tuple(leaves)

    @property
    def nested(self) -> tuple[Nested, ...]:
        return tuple(member for member in self.members if isinstance(member, Nested))

    @property
    def structs(self) -> tuple[type[msgspec.Struct], ...]:
        """The Struct and the nested Structs with fields as columns."""
        return (self.struct, *(struct for member in self.nested for struct in member.shape.structs))


def shape_of(struct: type[msgspec.Struct], above: tuple[type[msgspec.Struct], ...] = ()) -> Shape:
    """The tree of a Struct. Raises SettingsError for a type without a column and for a Struct that contains itself."""
    owner, members = struct.__name__, list[Field | Nested]()
    for info in msgspec.structs.fields(struct):
        inner, annotations, nullable = unwrap(info.type)
        if not is_struct(inner) or AsJson in annotations:
            members.append(field_of(info, owner))
            continue
        if inner in (*above, struct):
            raise SettingsError(
                f"{owner}.{info.name}: {inner.__name__} contains itself and would be columns without end. Declare the"
                f" field Annotated[{inner.__name__}, AsJson] for one jsonb column"
            )
        if not inner.__struct_fields__:
            raise SettingsError(f"{owner}.{info.name}: {inner.__name__} has no fields to make columns of")
        shape = shape_of(inner, (*above, struct))
        under = Nested(
            attribute=info.name,
            json_name=info.encode_name,
            nullable=nullable,
            default=info.default,
            default_factory=info.default_factory,
            shape=shape,
        )
        members.append(replace(under, shape=_below(under, shape)))
    return Shape(struct, tuple(members))


def _below(parent: Nested, shape: Shape) -> Shape:
    """The shape, with column names and paths prefixed by `parent`."""
    members = list[Field | Nested]()
    for member in shape.members:
        if isinstance(member, Nested):
            members.append(replace(member, shape=_below(parent, member.shape)))
        else:
            members.append(
                replace(
                    member,
                    name=f"{parent.attribute}_{member.name}",
                    path=f"{parent.json_name}.{member.path}",
                    dotted=f"{parent.attribute}.{member.dotted}",
                    nullable=parent.nullable or member.nullable,
                )
            )
    return Shape(shape.struct, tuple(members))


class StructVariant:
    """The user's Structs with other field types, but the same checks, renames and configuration.

    Args:
        checks: False leaves `__post_init__` out.
    """

    def __init__(self, shape: Shape, type_of: Callable[[Field], Any], checks: bool = True) -> None:
        self._shape = shape
        self._nested = {member.attribute: StructVariant(member.shape, type_of, checks) for member in shape.nested}
        fields = [(member.attribute, self._type(member, type_of), _options(member)) for member in shape.members]
        silent = {"__post_init__": lambda self: None} if not checks and has_checks(shape.struct) else None
        self.type = msgspec.defstruct(
            shape.struct.__name__, fields, bases=(shape.struct,), namespace=silent, kw_only=True, gc=False
        )

    def _type(self, member: Field | Nested, type_of: Callable[[Field], Any]) -> Any:
        if not isinstance(member, Nested):
            return type_of(member)
        inner: Any = self._nested[member.attribute].type
        return inner | None if member.nullable else inner

    def rebuilt(self, decoded: Any, leaves: Iterator[Any]) -> Any:
        """An event of this type with new leaves, null where `decoded` has no Struct. Runs the event's checks."""
        values = {}
        for member in self._shape.members:
            if isinstance(member, Nested):
                inner = None if decoded is None else getattr(decoded, member.attribute)
                values[member.attribute] = self._nested[member.attribute].rebuilt(inner, leaves)
            else:
                values[member.attribute] = next(leaves)
        return None if decoded is None else self.type(**values)


def has_checks(struct: type[msgspec.Struct]) -> bool:
    return hasattr(struct, "__post_init__")


def flat(shape: Shape, events: Sequence[Any]) -> list[tuple[Any, ...]]:
    """A tuple of leaves per event, made column by column."""
    return list(zip(*_columns(shape, events, nullable=False), strict=True))


def _columns(shape: Shape, events: Sequence[Any], nullable: bool) -> list[list[Any]]:
    columns: list[list[Any]] = []
    for member in shape.members:
        get = attrgetter(member.attribute)
        values = [None if event is None else get(event) for event in events] if nullable else list(map(get, events))
        if isinstance(member, Nested):
            columns += _columns(member.shape, values, nullable or member.nullable)
        else:
            columns.append(values)
    return columns


def _options(member: Field | Nested) -> Any:
    options: dict[str, Any] = {"default": member.default, "default_factory": member.default_factory}
    return msgspec.field(name=member.json_name, **options)

"""One topic into several tables, by the value of a field."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from .choices import Others
from .errors import SettingsError
from .fields import is_struct
from .formats import Format, Json, JsonSchema


@dataclass(frozen=True)
class Route:
    """The table of each record, by a text in the record's JSON object.

    Attributes:
        field: a key of the JSON object, at its top level.
        tables: text → table, or (table, Struct). Without a Struct the table has the stream's.
        others: a record with another text, or without the key, is a dead letter. "skip" only counts such records.
            "table" stores them in the stream's own table.
    """

    field: str
    tables: Mapping[str, str | tuple[str, type[msgspec.Struct]]] = dataclasses.field(hash=False)
    others: str = Others.DEAD_LETTER

    def targets(self, table: str, event: type[msgspec.Struct]) -> list[tuple[str, type[msgspec.Struct]]]:
        """(table, Struct) of each text and of all others. The arguments are the stream's."""
        named = [target if isinstance(target, tuple) else (target, event) for target in self.tables.values()]
        return [*named, (table, event)] if self.others == Others.TABLE else named

    def numbers(self, tables: Sequence[str]) -> dict[str, int]:
        """Text → index of its table in `tables`."""
        return {text: tables.index(_table(target)) for text, target in self.tables.items()}


def check_route(
    route: Route,
    table: str,
    event: type[msgspec.Struct],
    *,
    has_own_table: bool,
    record_format: Format,
    of_one_table: Mapping[str, object],
) -> None:
    """Raises SettingsError with the reason, which does not name the stream.

    Args:
        has_own_table: the stream names a table.
        of_one_table: option → its value, for options of a stream with one table.
    """
    for text, target in route.tables.items():
        named = target if isinstance(target, tuple) else (target, event)
        if not isinstance(text, str) or len(named) != 2 or not isinstance(named[0], str) or not is_struct(named[1]):
            raise SettingsError(f"route: {text!r} does not lead to a table or to (table, Struct)")
    targets = set(route.targets(table, event))
    if len(targets) > len({name for name, _ in targets}):
        raise SettingsError("route gives a table two Structs")
    if not route.field or not route.tables:
        raise SettingsError("route needs a field and at least one table")
    if route.others not in set(Others):
        raise SettingsError(f"route: others is one of {', '.join(map(repr, map(str, Others)))}")
    if route.others != Others.TABLE and has_own_table:
        raise SettingsError(f'table {table!r} gets no record of the route: leave it out, or others="table"')
    if not isinstance(record_format, Json | JsonSchema):
        raise SettingsError(f"route reads a field of JSON, and the format is {record_format}")
    for option, value in of_one_table.items():
        if value:
            raise SettingsError(f"{option} is for a stream with one table, and route names several")


def rows_by_table(rows: Sequence[tuple[Any, ...]]) -> dict[int, list[int]]:
    """Number of a table → indices of its rows. A routed stream's EventRow ends with this number.

    In the order of the tables: a foreign key may point to an earlier table.
    """
    indices: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        indices.setdefault(row[-1], []).append(i)
    return dict(sorted(indices.items()))


def _table(target: str | tuple[str, type[msgspec.Struct]]) -> str:
    return target[0] if isinstance(target, tuple) else target

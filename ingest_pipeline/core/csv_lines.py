"""CSV lines → mappings."""

import csv
from collections.abc import Mapping, Sequence

from .errors import RecordRefused, RecordSkipped
from .fields import Field
from .formats import Csv


class CsvReader:
    """Reads one line of values, in the order of the event's fields."""

    def __init__(self, fields: Sequence[Field], csv_format: Csv) -> None:
        self._names = [item.json_name for item in fields]
        self._nullable = frozenset(item.json_name for item in fields if item.nullable)
        self._delimiter = csv_format.delimiter

    def read(self, value: bytes) -> Mapping[str, str | None]:
        """Field → text, or None for an empty value of a nullable field. Raises RecordRefused, and
        RecordSkipped for a header."""
        try:
            text = value.decode("utf-8-sig")  # a file's first line may begin with a byte order mark
            rows = list(csv.reader([text.rstrip("\r\n")], delimiter=self._delimiter, strict=True))
        except UnicodeDecodeError:
            raise RecordRefused("not valid UTF-8") from None
        except csv.Error:
            raise RecordRefused("not one line of CSV") from None
        if len(rows) != 1 or len(rows[0]) != len(self._names):
            count = len(rows[0]) if len(rows) == 1 else 0
            raise RecordRefused(f"{count} values, {len(self._names)} are declared")
        if rows[0] == self._names and len(rows[0]) > 1:
            raise RecordSkipped("the line of the fields' names")
        pairs = zip(self._names, rows[0], strict=True)
        return {name: None if text == "" and name in self._nullable else text for name, text in pairs}

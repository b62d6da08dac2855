"""Keys of JSON objects → names of fields, columns and classes."""

import keyword
import re
import unicodedata
from collections.abc import Iterable

from .column_names import POSTGRES_NAME_BYTES, taken_names
from .fields import PG_TYPES

_TYPE_NAMES = {kind.__name__ for kind in PG_TYPES} | {"field"}
"""A field of such a name would hide the type from the fields below."""
_TIME_WORDS = re.compile(
    "times?|timestamp|ts|at|on|date|datetime|created|updated|modified|changed|deleted|epoch|when|since|until|expires"
)
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def words_of(key: str) -> list[str]:
    """`createdAt` and `created_at` are created, at."""
    return [word for word in re.split(r"[\W_]+", _WORD.sub("_", key).lower()) if word]


def camel_case(name: str) -> str:
    """A class's name from a field's or a stream's."""
    return "".join(word.capitalize() for word in name.split("_")) or name


def is_time_name(key: str) -> bool:
    return any(map(_TIME_WORDS.fullmatch, words_of(key)))


def field_names(keys: Iterable[str], prefix: tuple[str, ...]) -> dict[str, str]:
    """Key → a name in Python, in lower case, different from the names of the other keys.

    Args:
        prefix: names of the fields around these.
    """
    names: dict[str, str] = {}
    taken = {*(taken_names() if not prefix else ()), *keyword.kwlist, *_TYPE_NAMES}
    for key in keys:
        names[key] = _free(plain_name(key), {*taken, *names.values()}, prefix)
    return names


def plain_name(key: str) -> str:
    text = unicodedata.normalize("NFKC", "_".join(words_of(unicodedata.normalize("NFKC", key))))
    text = text if text.isidentifier() else re.sub(r"[^A-Za-z0-9_]", "", text)
    return text if text[:1].isalpha() and text.isidentifier() else f"field_{text}".rstrip("_")


def _free(name: str, taken: set[str], prefix: tuple[str, ...]) -> str:
    """The name, cut to PostgreSQL's bytes and made different from the taken ones."""
    room = POSTGRES_NAME_BYTES - len("_".join((*prefix, "")).encode()) - len("_value_999")
    name = name.encode()[: max(room, 8)].decode(errors="ignore").rstrip("_")
    if name in taken:
        name += "_value"
    return next(text for text in (name, *(f"{name}_{number}" for number in range(2, 1000))) if text not in taken)

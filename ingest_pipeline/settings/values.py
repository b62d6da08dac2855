"""Types of setting values: parsing, form and display.

A validator's ValueError has a reason if the form alone does not explain the refusal. The reason never quotes the text,
which may be a secret.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import EnumType
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    SecretStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo

from ..core.timestamps import in_utc, kafka_time, parse_instant
from .database_url import MASK, check_postgres_url, masked_url

DAY_SECONDS = 86400
MIB = 1024 * 1024
_UNITS = ((MIB, "MiB"), (1024, "KiB"))
_BYTE_SIZE = TypeAdapter(ByteSize)


@dataclass(frozen=True)
class Shape:
    """The form of a value. The text ends the sentence "X must be …"."""

    text: str


class InBytes:
    """Marks a number of bytes, printed in KiB and MiB."""


class Hidden(SecretStr):
    """A secret without a part that may be shown, such as a password or a webhook's address."""


class Values(BaseModel):
    """Frozen values. The constructor never reads the environment."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        validate_default=True,
    )


class SecretText(str):
    """A text with a masked `repr`, for containers that print their items. `str` gives the text itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(MASK)


def byte_count(value: object) -> int:
    """The number of bytes in 16777216, "16MiB" or "512 KiB". Raises ValueError."""
    try:
        return int(_BYTE_SIZE.validate_python(value))
    except ValidationError:
        raise ValueError from None


def start_from(value: object) -> object:
    """ "earliest", "latest", or an instant in UTC. A time without a zone counts as UTC. Raises ValueError."""
    if value in ("earliest", "latest"):
        return value
    try:
        instant = in_utc(value) if isinstance(value, datetime) else parse_instant(str(value))
    except ValueError:
        raise ValueError from None
    return kafka_time(instant)


def postgres_url(value: SecretStr) -> SecretStr:
    """Returns the URL unchanged. Raises ValueError."""
    check_postgres_url(value.get_secret_value())
    return value


def webhook_url(value: Hidden) -> Hidden:
    """Returns the address unchanged. Raises ValueError."""
    if re.fullmatch(r"https?://[^\s/]+\S*", value.get_secret_value()) is None:
        raise ValueError
    return value


def schema_name(value: str) -> str:
    """Returns the name unchanged. Raises ValueError for a name that needs quotes or belongs to PostgreSQL."""
    if re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value) is None:
        raise ValueError
    if value.startswith("pg_"):
        raise ValueError("pg_ is reserved by PostgreSQL")
    return value


ByteCount = Annotated[int, BeforeValidator(byte_count), InBytes()]
StartFrom = Annotated[
    Literal["earliest", "latest"] | datetime,
    BeforeValidator(start_from),
    Shape("earliest, latest or an ISO 8601 time such as 2026-01-31T06:00:00Z (UTC when it names no zone)"),
]
PostgresUrl = Annotated[SecretStr, AfterValidator(postgres_url), Shape("postgresql://user:password@host:port/database")]
WebhookUrl = Annotated[Hidden, AfterValidator(webhook_url)]
SchemaName = Annotated[
    str,
    AfterValidator(schema_name),
    Shape("a PostgreSQL name of a-z, 0-9 and _, at most 63 characters, not starting with a digit or pg_"),
]

QUANTITY_SHAPE = Shape("a quantity of Kubernetes, such as 500m, 2 or 512Mi")
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?$"), QUANTITY_SHAPE]
NAME_SHAPE = Shape("1 to 200 characters without spaces")
Name = Annotated[str, StringConstraints(pattern=r"^\S{1,200}$"), NAME_SHAPE]
ImportPath = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"),
    Shape("module:name, such as my_project.streams:STREAMS"),
]


def bytes_text(count: int) -> str:
    """Bytes in the largest unit without a fraction: "16 MiB", "1000"."""
    for size, unit in _UNITS:
        if count and count % size == 0:
            return f"{count // size} {unit}"
    return str(count)


def is_secret(field: FieldInfo) -> bool:
    return any(isinstance(type_, type) and issubclass(type_, SecretStr) for type_ in _types(field.annotation))


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _types(argument)


def _is_bytes(field: FieldInfo) -> bool:
    return any(isinstance(item, InBytes) for item in field.metadata)


def allowed(field: FieldInfo) -> str:
    """The form and range of a field's value: the end of the sentence "X must be …"."""
    for item in field.metadata:
        if isinstance(item, Shape):
            return item.text
    if get_origin(field.annotation) is Literal:
        return " or ".join(get_args(field.annotation))
    if isinstance(field.annotation, EnumType):
        return " or ".join(field.annotation.__members__.values())
    if field.annotation is bool:
        return "0 or 1"
    low = next((item.ge for item in field.metadata if isinstance(item, Ge)), None)
    high = next((item.le for item in field.metadata if isinstance(item, Le)), None)
    if _is_bytes(field):
        return f"a size from {bytes_text(low)} to {bytes_text(high)}, such as 1048576, 1MiB or 512 KiB"  # type: ignore[arg-type]
    kind = "a whole number" if field.annotation is int else "a number"
    return f"{kind} from {low} to {high}"


def display_text(field: FieldInfo, value: Any) -> str:
    """The value as text for the environment, with secrets masked. "" for None."""
    if value is None:
        return ""
    if isinstance(value, Hidden):
        return MASK
    if isinstance(value, SecretStr):
        return masked_url(value.get_secret_value())
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:g}"
    return bytes_text(value) if _is_bytes(field) else str(value)

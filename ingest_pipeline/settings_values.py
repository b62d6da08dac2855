"""Types of setting values: how a text becomes a value, what it must look like, how it is shown.

A validator's ValueError says why, where the shape alone does not: in words of its own, as the text may be a
secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import AfterValidator, BeforeValidator, ByteSize, SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from .core.timestamps import in_utc, kafka_time, parse_instant

MASK = "********"
MIB = 1024 * 1024
_UNITS = ((MIB, "MiB"), (1024, "KiB"))
_BYTE_SIZE = TypeAdapter(ByteSize)
_SECRET_PARAMETER = re.compile(r"(?<=[?&])([^=&]*(?:password|secret|key|%)[^=&]*)=[^&]*", re.IGNORECASE)
_HOST = r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
_POSTGRES_URL = re.compile(
    r"postgres(?:ql)?://"
    r"(?:(?P<user>[^@:/?#\s]*)(?::(?P<password>[^@:/?#\s]*))?@)?"
    rf"(?P<hosts>(?:{_HOST}(?:,{_HOST})*)?)"
    r"(?:/(?P<database>[^@/?#\s]*))?"
    r"(?:\?(?P<query>[^#\s]*))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Shape:
    """What a value must be; the text continues the sentence "X must be …"."""

    text: str


class InBytes:
    """Marks a number of bytes, shown in KiB and MiB."""


class Webhook(SecretStr):
    """An address that is secret as a whole: whoever knows it may post."""


class SecretText(str):
    """A text that containers print masked: its `repr` is a mask, its `str` is the text itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(MASK)


def byte_count(value: object) -> int:
    """16777216, "16MiB" or "512 KiB" as a number of bytes. Raises ValueError."""
    try:
        return int(_BYTE_SIZE.validate_python(value))
    except ValidationError:
        raise ValueError from None


def start_from(value: object) -> object:
    """ "earliest", "latest", or the instant in UTC. A time without zone is UTC. Raises ValueError."""
    if value in ("earliest", "latest"):
        return value
    try:
        instant = in_utc(value) if isinstance(value, datetime) else parse_instant(str(value))
    except ValueError:
        raise ValueError from None
    return kafka_time(instant)


def postgres_url(value: SecretStr) -> SecretStr:
    """The URL, unchanged. Raises ValueError unless SQLAlchemy and libpq would read the same parts from it."""
    text = value.get_secret_value()
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("it starts with neither postgresql:// nor postgres://")
    if _POSTGRES_URL.fullmatch(text) is None:
        raise ValueError(
            "special characters of user and password go percent-encoded (@ is %40), a socket as ?host=/dir"
        )
    return value


def webhook_url(value: Webhook) -> Webhook:
    """The address, unchanged. Raises ValueError."""
    if re.fullmatch(r"https?://[^\s/]+\S*", value.get_secret_value()) is None:
        raise ValueError
    return value


def schema_name(value: str) -> str:
    """The name, unchanged. Raises ValueError when it would need quotes or is PostgreSQL's own."""
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
WebhookUrl = Annotated[Webhook, AfterValidator(webhook_url)]
SchemaName = Annotated[
    str,
    AfterValidator(schema_name),
    Shape("a PostgreSQL name of a-z, 0-9 and _, at most 63 characters, not starting with a digit or pg_"),
]


def sqlalchemy_url(url: str) -> str:
    """A checked PostgreSQL URL as SQLAlchemy writes it, for the psycopg driver.

    Several hosts move into the query, the one place where SQLAlchemy accepts them with ports.
    """
    match = _POSTGRES_URL.fullmatch(url)
    if match is None:
        raise ValueError("not a PostgreSQL URL")
    _, _, rest = url.partition("://")
    hosts = match["hosts"]
    if "," in hosts:
        query = "&".join([f"host={host}" for host in hosts.split(",")] + ([match["query"]] if match["query"] else []))
        before = rest[: match.start("hosts") - len(url) + len(rest)]
        rest = f"{before}/{match['database'] or ''}?{query}"
    return f"postgresql+psycopg://{rest}"


def masked_url(url: str) -> str:
    """A checked PostgreSQL URL with its password, and any parameter that may be one, masked."""
    match = _POSTGRES_URL.fullmatch(url)
    if match is None:
        return MASK
    if match["password"]:
        url = f"{url[: match.start('password')]}{MASK}{url[match.end('password') :]}"
    return _SECRET_PARAMETER.sub(rf"\1={MASK}", url)


def bytes_text(count: int) -> str:
    """A number of bytes in the largest unit that divides it: "16 MiB", "1000"."""
    for size, unit in _UNITS:
        if count and count % size == 0:
            return f"{count // size} {unit}"
    return str(count)


def _is_bytes(field: FieldInfo) -> bool:
    return any(isinstance(item, InBytes) for item in field.metadata)


def allowed(field: FieldInfo) -> str:
    """What a field's value must be, with its range: the end of the sentence "X must be …"."""
    for item in field.metadata:
        if isinstance(item, Shape):
            return item.text
    if get_origin(field.annotation) is Literal:
        return " or ".join(str(choice) for choice in get_args(field.annotation))
    if field.annotation is bool:
        return "0 or 1"
    low = next((item.ge for item in field.metadata if isinstance(item, Ge)), None)
    high = next((item.le for item in field.metadata if isinstance(item, Le)), None)
    if _is_bytes(field):
        return f"a size from {bytes_text(low)} to {bytes_text(high)}, such as 1048576, 1MiB or 512 KiB"  # type: ignore[arg-type]
    kind = "a whole number" if field.annotation is int else "a number"
    return f"{kind} from {low} to {high}"


def shown(field: FieldInfo, value: Any) -> str:
    """A value as it could be written into the environment again, secrets masked; "" for none."""
    if value is None:
        return ""
    if isinstance(value, Webhook):
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

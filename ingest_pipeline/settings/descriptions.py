"""Settings as rows of text for `ingest settings` and for docs/configuration.md. Secrets are masked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from . import kafka
from .model import Settings
from .shared_settings import SharedSettings
from .stream_settings import StreamSettings
from .values import Values, allowed, display_text
from .variables import stream_prefix, variable


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as text. `value` and `default` have secrets masked and are "" for none."""

    name: str
    value: str
    default: str
    meaning: str
    per_stream: bool
    allowed: str


def describe(settings: Settings) -> list[Setting]:
    """A row for every setting and every Kafka property that is set, then the overrides of the streams."""
    rows = list(_rows(settings, SharedSettings()))
    for name, value in settings.kafka.items():
        rows.append(
            Setting(
                name=kafka.property_variable(name),
                value=kafka.display_text(name, value),
                default=kafka.DEFAULTS.get(name, ""),
                meaning=kafka.meaning(name),
                per_stream=False,
                allowed=kafka.allowed(name),
            )
        )
    rows += _rows(settings.stream_defaults, StreamSettings())
    for name, stream in settings.streams.items():
        own = _rows(stream, settings.stream_defaults, stream_prefix(name))
        rows += [row for row in own if row.value != row.default]
    return rows


def _rows(values: Values, defaults: Values, prefix: str = "") -> Iterable[Setting]:
    for name, field in type(defaults).model_fields.items():
        yield Setting(
            name=prefix + variable(name),
            value=display_text(field, getattr(values, name)),
            default=display_text(field, getattr(defaults, name)),
            meaning=field.description or "",
            per_stream=isinstance(defaults, StreamSettings),
            allowed=allowed(field),
        )

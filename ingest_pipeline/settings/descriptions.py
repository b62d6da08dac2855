"""Settings as rows of text for `ingest settings` and for docs/configuration.md. Secrets are masked."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from . import kafka
from .job_settings import JobSettings
from .model import Settings
from .shared_settings import SharedSettings
from .stream_settings import StreamSettings
from .values import Values, allowed, display_text
from .variables import prefix, variable

Scope = Literal["deployment", "job", "stream"]
_SCOPES: dict[type[Values], Scope] = {JobSettings: "job", StreamSettings: "stream"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as text. `value` and `default` have secrets masked and are "" for none."""

    name: str
    value: str
    default: str
    meaning: str
    scope: Scope
    allowed: str


def describe(settings: Settings) -> list[Setting]:
    """A row for every setting and every Kafka property that is set, then the overrides of streams and jobs."""
    rows = list(_rows(settings, SharedSettings()))
    for name, value in settings.kafka.items():
        rows.append(
            Setting(
                name=kafka.property_variable(name),
                value=kafka.display_text(name, value),
                default=kafka.DEFAULTS.get(name, ""),
                meaning=kafka.meaning(name),
                scope="deployment",
                allowed=kafka.allowed(name),
            )
        )
    rows += _rows(settings.stream_defaults, StreamSettings())
    rows += _rows(settings.job_defaults, JobSettings())
    for name, stream in settings.streams.items():
        rows += _overrides(name, stream, settings.stream_defaults)
    for name, job in settings.jobs.items():
        rows += _overrides(name, job, settings.job_defaults)
    return rows


def _overrides(name: str, values: Values, defaults: Values) -> Iterable[Setting]:
    return (row for row in _rows(values, defaults, prefix(name)) if row.value != row.default)


def _rows(values: Values, defaults: Values, own_prefix: str = "") -> Iterable[Setting]:
    scope = _SCOPES.get(type(defaults), "deployment")
    for name, field in type(defaults).model_fields.items():
        yield Setting(
            name=own_prefix + variable(name),
            value=display_text(field, getattr(values, name)),
            default=display_text(field, getattr(defaults, name)),
            meaning=field.description or "",
            scope=scope,
            allowed=allowed(field),
        )

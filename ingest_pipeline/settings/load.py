"""Environment → frozen, validated values: `load_settings` reads, `describe` shows. No import reads any."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource

from ..core.errors import SettingsError
from . import kafka
from .kafka import kafka_properties
from .model import SHARED_VARIABLES, STREAM_VARIABLES, Settings, SharedSettings, StreamSettings, Values, variable
from .values import allowed, shown

FOREIGN = ("OTEL_", "TOKENIZERS_", "DAGSTER_", "CELERY_", "AIRFLOW_")
"""Variables of well-known software are never misspelt ones: TOKENIZERS_PARALLELISM beside a stream `tokenizer`."""
MISSPELT = 0.8
"""How alike a word and a stream's name must be to count as the same name, misspelt: PRCIE and PRICE are."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, for people. `value` and `default` are texts with secrets masked, "" for none."""

    name: str
    value: str
    default: str
    meaning: str
    per_stream: bool
    allowed: str


def load_settings(
    stream_names: Sequence[str], environ: Mapping[str, str] | None = None, env_file: str | None = ".env"
) -> Settings:
    """The settings of the streams named, and what they share.

    `<STREAM>_X` beats `X` beats the default. A variable that is set to nothing counts as not set.

    Args:
        stream_names: of all streams. With none, nothing is taken for an override, or for a misspelt one.
        environ: read instead of the process's environment, and instead of `env_file`.
        env_file: beneath the process's environment, which wins; in the current directory; may be absent.

    Raises:
        SettingsError: with a line for every variable that cannot be used, and no secret in any.
    """
    variables = _variables(environ, env_file)
    problems: dict[str, str] = {}
    shared = _read(SharedSettings, variables, "", problems)
    defaults = _read(StreamSettings, variables, "", problems)
    streams = {name: _read(StreamSettings, variables, _prefix(name), problems) for name in stream_names}
    insecure = SharedSettings(**{key: text for key, text in shared.items() if key == "allow_insecure_tls"})
    own = {*SHARED_VARIABLES, *STREAM_VARIABLES, *_overrides(stream_names)}
    kafka, refused = kafka_properties(variables, own, insecure.allow_insecure_tls)
    problems |= refused | _misnamed(variables, own, stream_names)
    _refuse(problems)
    return Settings(
        **shared,
        kafka=kafka,
        stream_defaults=StreamSettings(**defaults),
        streams={name: StreamSettings(**found) for name, found in streams.items()},
    )


def streams_place(environ: Mapping[str, str] | None = None, env_file: str | None = ".env") -> str:
    """Where the list of streams is, `module:name`: all that is read before their names are known.

    Raises:
        SettingsError: it is no such text.
    """
    text = _variables(environ, env_file).get("INGEST_STREAMS")
    problems: dict[str, str] = {}
    found = _read(SharedSettings, {} if text is None else {"INGEST_STREAMS": text}, "", problems)
    _refuse(problems)
    return SharedSettings(**found).ingest_streams


def _refuse(problems: Mapping[str, str]) -> None:
    if problems:
        lines = "".join(f"\n  {key} {problems[key]}" for key in sorted(problems))
        raise SettingsError(f"{len(problems)} setting{'s' * (len(problems) > 1)} cannot be used:{lines}")


_SECRET = ("database_url", "alert_webhook_url")


def describe(settings: Settings) -> list[Setting]:
    """A row for every setting and for every Kafka property set; then what a stream has of its own."""
    rows = list(_rows(settings, SharedSettings()))
    for name, value in settings.kafka.items():
        rows.append(
            Setting(
                name=kafka.variable(name),
                value=kafka.shown(name, value),
                default=kafka.DEFAULTS.get(name, ""),
                meaning=kafka.meaning(name),
                per_stream=False,
                allowed=kafka.allowed(name),
            )
        )
    rows += _rows(settings.stream_defaults, StreamSettings())
    for name, stream in settings.streams.items():
        rows += [row for row in _rows(stream, settings.stream_defaults, _prefix(name)) if row.value != row.default]
    return rows


def _rows(values: Values, defaults: Values, prefix: str = "") -> Iterable[Setting]:
    for name, field in type(defaults).model_fields.items():
        yield Setting(
            name=prefix + variable(name),
            value=shown(field, getattr(values, name)),
            default=shown(field, getattr(defaults, name)),
            meaning=field.description or "",
            per_stream=isinstance(defaults, StreamSettings),
            allowed=allowed(field),
        )


class _Variables(PydanticBaseSettingsSource):
    """The texts of a model's fields, a stream's own before the common ones."""

    def __init__(self, model: type[BaseSettings], variables: Mapping[str, str], prefix: str) -> None:
        super().__init__(model)
        self._variables = variables
        self._prefix = prefix

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """(text or None, the variable it is from, False: no text is JSON)."""
        common = variable(field_name)
        key = self._prefix + common if self._prefix + common in self._variables else common
        return self._variables.get(key), key, False

    def __call__(self) -> dict[str, Any]:
        """Field → text, for the fields that are set."""
        texts = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: text for name, text in texts.items() if text is not None}


def _read(model: type[Values], variables: Mapping[str, str], prefix: str, problems: dict[str, str]) -> dict[str, Any]:
    """Field → text of those that are set and usable; the others are added to `problems` by variable."""
    source = _Variables(model, variables, prefix)
    found = source()
    try:
        model(**found)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            if not item["loc"]:
                problems["DATABASE_POOL_MAX"] = str(item["ctx"]["error"])
                continue
            name = str(item["loc"][0])
            field = model.model_fields[name]
            text, key, _ = source.get_field_value(field, name)
            but = "" if name in _SECRET else f", not {text[:60]!r}"
            why = str(item["ctx"]["error"]) if item["type"] == "value_error" else ""
            problems[key] = f"must be {allowed(field)}{but}" + (f": {why}" if why else "")
            found.pop(name, None)
    return found


def _variables(environ: Mapping[str, str] | None, env_file: str | None) -> dict[str, str]:
    return _set(environ) if environ is not None else _set(_dotenv(env_file)) | _set(os.environ)


def _set(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {key: text for key, text in variables.items() if text is not None and text.strip()}


def _dotenv(env_file: str | None) -> Mapping[str, str | None]:
    try:
        source = DotEnvSettingsSource(Values, env_file, env_file_encoding="utf-8", case_sensitive=True)
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file} is not UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"{env_file} cannot be read: {error.strerror}") from None
    return source.env_vars


def _prefix(stream_name: str) -> str:
    return f"{stream_name.upper()}_"


def _overrides(stream_names: Iterable[str]) -> set[str]:
    return {_prefix(name) + setting for name in stream_names for setting in STREAM_VARIABLES}


def _misnamed(variables: Iterable[str], own: set[str], stream_names: Sequence[str]) -> dict[str, str]:
    """What is wrong with variables that were meant to set something, mostly for one stream."""
    problems = {}
    for key in variables:
        if key.startswith(FOREIGN) or key in own:
            continue
        problem = _near_field(key)
        if stream_names and not problem:
            problem = _near_stream(key, stream_names) or _near_setting(key, stream_names)
        if problem:
            problems[key] = problem
    return problems


def _near_field(key: str) -> str:
    """For the one setting whose variable lacks the unit that its field and its neighbours have."""
    field = key.lower()
    return f"sets nothing; the name is {variable(field)}" if field in StreamSettings.model_fields else ""


def _near_stream(key: str, stream_names: Sequence[str]) -> str:
    """For a setting of a stream whose name is misspelt. Another project's variable may end as ours do."""
    for setting in STREAM_VARIABLES:
        if key.endswith(f"_{setting}"):
            word = key.removesuffix(f"_{setting}").lower()
            if near := get_close_matches(word, stream_names, n=1, cutoff=MISSPELT):
                return f"names no stream; the nearest name is {_prefix(near[0])}{setting}"
    return ""


def _near_setting(key: str, stream_names: Sequence[str]) -> str:
    for name in stream_names:
        setting = key.removeprefix(_prefix(name))
        if setting == key:
            continue
        if setting in SHARED_VARIABLES or kafka.is_property(setting):
            return f"cannot be set for one stream: {setting} holds for all"
        near = get_close_matches(setting, STREAM_VARIABLES, n=1, cutoff=0.75)
        if near:
            return f"sets nothing; the nearest name is {_prefix(name)}{near[0]}"
    return ""

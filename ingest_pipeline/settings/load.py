"""Environment variables → frozen, validated settings. Only a call reads the environment, never an import."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource

from ..core.errors import SettingsError
from .kafka import kafka_properties
from .misspelt import misspelt
from .model import Settings
from .shared_settings import SharedSettings
from .stream_settings import StreamSettings
from .values import Values, allowed
from .variables import SHARED_VARIABLES, STREAM_VARIABLES, stream_prefix, variable

_SECRET_FIELDS = ("database_url", "alert_webhook_url")


def load_settings(
    stream_names: Sequence[str], environ: Mapping[str, str] | None = None, env_file: str | None = ".env"
) -> Settings:
    """The settings of the named streams and of the deployment.

    `<STREAM>_X` beats `X` beats the default. An empty variable counts as not set.

    Args:
        stream_names: of all streams. Without any, no variable counts as an override or as a misspelt name.
        environ: replaces both the process's environment and `env_file`.
        env_file: an optional file in the current directory. The process's environment beats the file.

    Raises:
        SettingsError: a line for every unusable variable. No line quotes a secret.
    """
    variables = _variables(environ, env_file)
    problems: dict[str, str] = {}
    shared = _read(SharedSettings, variables, problems)
    defaults = _read(StreamSettings, variables, problems)
    streams = {name: _read(StreamSettings, variables, problems, stream_prefix(name)) for name in stream_names}
    insecure = SharedSettings(**{field: text for field, text in shared.items() if field == "allow_insecure_tls"})
    overrides = {stream_prefix(name) + setting for name in stream_names for setting in STREAM_VARIABLES}
    own = {*SHARED_VARIABLES, *STREAM_VARIABLES, *overrides}
    kafka, kafka_problems = kafka_properties(variables, own, insecure.allow_insecure_tls)
    problems |= kafka_problems | misspelt(variables, own, stream_names)
    _raise_problems(problems)
    return Settings(
        **shared,
        kafka=kafka,
        stream_defaults=StreamSettings(**defaults),
        streams={name: StreamSettings(**texts) for name, texts in streams.items()},
    )


def streams_import_path(environ: Mapping[str, str] | None = None, env_file: str | None = ".env") -> str:
    """INGEST_STREAMS: the module and the name of the list of streams, as `module:name`.

    The list has the streams' names, so no other setting can be read before the list is imported.

    Raises:
        SettingsError: the value has another form.
    """
    text = _variables(environ, env_file).get("INGEST_STREAMS")
    problems: dict[str, str] = {}
    texts = _read(SharedSettings, {} if text is None else {"INGEST_STREAMS": text}, problems)
    _raise_problems(problems)
    return SharedSettings(**texts).ingest_streams


def _raise_problems(problems: Mapping[str, str]) -> None:
    if problems:
        lines = "".join(f"\n  {key} {problems[key]}" for key in sorted(problems))
        raise SettingsError(f"{len(problems)} setting{'s' * (len(problems) > 1)} cannot be used:{lines}")


class _VariablesSource(PydanticBaseSettingsSource):
    """The texts of a model's fields. A stream's own variable comes before the common one."""

    def __init__(self, model: type[BaseSettings], variables: Mapping[str, str], prefix: str) -> None:
        super().__init__(model)
        self._variables = variables
        self._prefix = prefix

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """(text or None, its variable, False because no text is JSON)."""
        common = variable(field_name)
        key = self._prefix + common if self._prefix + common in self._variables else common
        return self._variables.get(key), key, False

    def __call__(self) -> dict[str, Any]:
        """Field → text, for the fields that are set."""
        texts = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: text for name, text in texts.items() if text is not None}


def _read(
    model: type[Values], variables: Mapping[str, str], problems: dict[str, str], prefix: str = ""
) -> dict[str, Any]:
    """Field → text, for the fields with a usable text. The other fields are added to `problems` by variable."""
    source = _VariablesSource(model, variables, prefix)
    texts = source()
    try:
        model(**texts)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            if not item["loc"]:
                problems["DATABASE_POOL_MAX"] = str(item["ctx"]["error"])
                continue
            name = str(item["loc"][0])
            field = model.model_fields[name]
            text, key, _ = source.get_field_value(field, name)
            quoted = "" if name in _SECRET_FIELDS else f", not {text[:60]!r}"
            reason = str(item["ctx"]["error"]) if item["type"] == "value_error" else ""
            problems[key] = f"must be {allowed(field)}{quoted}" + (f": {reason}" if reason else "")
            texts.pop(name, None)
    return texts


def _variables(environ: Mapping[str, str] | None, env_file: str | None) -> dict[str, str]:
    return _not_empty(environ) if environ is not None else _not_empty(_dotenv(env_file)) | _not_empty(os.environ)


def _not_empty(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {key: text for key, text in variables.items() if text is not None and text.strip()}


def _dotenv(env_file: str | None) -> Mapping[str, str | None]:
    try:
        source = DotEnvSettingsSource(Values, env_file, env_file_encoding="utf-8", case_sensitive=True)
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file} is not UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"{env_file} cannot be read: {error.strerror}") from None
    return source.env_vars

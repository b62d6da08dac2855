"""Environment variables → frozen, validated settings. Only a call reads the environment, never an import."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from ..core.errors import SettingsError
from .database_url import unverified_hosts
from .job_settings import JobSettings
from .kafka import INSECURE, kafka_properties
from .misspelt import misspelt
from .model import Settings
from .secret_files import with_files_read
from .shared_settings import SharedSettings
from .stream_settings import StreamSettings
from .values import Values, allowed
from .variables import JOB_VARIABLES, SHARED_VARIABLES, STREAM_VARIABLES, prefix, variable

_ENV_FILE = ".env"
_SECRET_FIELDS = ("database_url", "alert_webhook_url", "schema_registry_url", "schema_registry_basic_auth")


def load_settings(
    job_of_stream: Mapping[str, str] | Sequence[str],
    environ: Mapping[str, str] | None = None,
    env_file: str | None = _ENV_FILE,
    declared: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of the named streams, of their jobs and of the deployment.

    `<STREAM>_X` or `<JOB>_X` beats `X` beats the default. An empty variable counts as not set.

    Args:
        job_of_stream: every stream's name and its job's, or the names alone of streams with jobs of the same names.
            Without any, no variable counts as an override or as a misspelt name.
        environ: replaces both the process's environment and `env_file`.
        env_file: an optional file in the current directory. The process's environment beats the file.
        declared: variables that the environment and the file beat, from the streams' declarations.

    Raises:
        SettingsError: a line for every unusable variable. No line quotes a secret.
    """
    problems: dict[str, str] = {}
    variables = {**(declared or {}), **with_files_read(_variables(environ, env_file), problems)}
    shared = _read(SharedSettings, variables, problems)
    defaults = _read(StreamSettings, variables, problems)
    job_defaults = _read(JobSettings, variables, problems)
    if not isinstance(job_of_stream, Mapping):
        job_of_stream = {name: name for name in job_of_stream}
    streams = _own_texts(StreamSettings, variables, problems, job_of_stream)
    jobs = _own_texts(JobSettings, variables, problems, set(job_of_stream.values()))
    insecure = SharedSettings(**{field: text for field, text in shared.items() if field == "allow_insecure_tls"})
    overrides = {prefix(name) + setting for name in job_of_stream for setting in STREAM_VARIABLES}
    overrides |= {prefix(name) + setting for name in job_of_stream.values() for setting in JOB_VARIABLES}
    own = {*SHARED_VARIABLES, *STREAM_VARIABLES, *JOB_VARIABLES, *overrides}
    kafka, kafka_problems = kafka_properties(variables, own, insecure.allow_insecure_tls)
    of_process = _not_empty(os.environ if environ is None else environ)  # libpq does not read `env_file`
    if not insecure.allow_insecure_tls and (reason := _database_danger(shared, of_process)):
        problems["DATABASE_URL"] = reason
    problems |= kafka_problems | misspelt(variables, own, job_of_stream)
    _raise_problems(problems)
    stream_defaults, common_job = StreamSettings(**defaults), JobSettings(**job_defaults)
    return Settings(
        **shared,
        kafka=kafka,
        stream_defaults=stream_defaults,
        streams=dict.fromkeys(job_of_stream, stream_defaults)
        | {name: StreamSettings(**texts) for name, texts in streams.items()},
        job_defaults=common_job,
        jobs=dict.fromkeys(job_of_stream.values(), common_job)
        | {name: JobSettings(**texts) for name, texts in jobs.items()},
    )


def _database_danger(shared: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    hosts = unverified_hosts(shared["database_url"], environ) if "database_url" in shared else []
    if not hosts:
        return ""
    return (
        f"is refused: any server could pose as {' or '.join(hosts)}. Add sslmode=verify-full and sslrootcert, which is"
        f" the file of the certificate authority or the word system. {INSECURE}=1 allows this for a test"
    )


def streams_import_path() -> str:
    """INGEST_STREAMS: the module and the name of the list of streams, as `module:name`.

    The list has the streams' names, so no other setting can be read before the list is imported.

    Raises:
        SettingsError: the value has another form.
    """
    text = _variables(None, _ENV_FILE).get("INGEST_STREAMS")
    problems: dict[str, str] = {}
    texts = _read(SharedSettings, {} if text is None else {"INGEST_STREAMS": text}, problems)
    _raise_problems(problems)
    return SharedSettings(**texts).ingest_streams


def _raise_problems(problems: Mapping[str, str]) -> None:
    if problems:
        lines = "".join(f"\n  {key} {problems[key]}" for key in sorted(problems))
        raise SettingsError(f"{len(problems)} setting{'s' * (len(problems) > 1)} cannot be used:{lines}")


def _read(
    model: type[Values], variables: Mapping[str, str], problems: dict[str, str], prefix: str = ""
) -> dict[str, Any]:
    """Field → text, for the fields with a usable text. The other fields are added to `problems` by variable.

    The own variable of a stream or job, with its prefix, comes before the common one.
    """
    keys = {}
    for name in model.model_fields:
        common = variable(name)
        keys[name] = prefix + common if prefix + common in variables else common
    texts: dict[str, Any] = {name: variables[key] for name, key in keys.items() if key in variables}
    try:
        model(**texts)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            if not item["loc"]:
                problems["DATABASE_POOL_MAX"] = str(item["ctx"]["error"])
                continue
            name = str(item["loc"][0])
            quoted = "" if name in _SECRET_FIELDS else f", not {variables[keys[name]][:60]!r}"
            reason = str(item["ctx"]["error"]) if item["type"] == "value_error" else ""
            problem = f"must be {allowed(model.model_fields[name])}{quoted}"
            problems[keys[name]] = problem + (f": {reason}" if reason else "")
            texts.pop(name, None)
    return texts


def _own_texts(
    model: type[Values], variables: Mapping[str, str], problems: dict[str, str], names: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Stream or job → its texts, for those with a variable of their own. Validating 1,000 more would take seconds."""
    own = (name for name in names if any(prefix(name) + variable(field) in variables for field in model.model_fields))
    return {name: _read(model, variables, problems, prefix(name)) for name in own}


def _variables(environ: Mapping[str, str] | None, env_file: str | None) -> dict[str, str]:
    return _not_empty(environ) if environ is not None else _not_empty(_dotenv(env_file)) | _not_empty(os.environ)


def _not_empty(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {key: text for key, text in variables.items() if text is not None and text.strip()}


def _dotenv(env_file: str | None) -> Mapping[str, str | None]:
    try:
        return {} if env_file is None else dotenv_values(env_file, encoding="utf-8")
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file} is not UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"{env_file} cannot be read: {error.strerror}") from None

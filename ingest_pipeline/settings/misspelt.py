"""Misspelt settings: variables without an effect whose names resemble a setting."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from .job_settings import JobSettings
from .kafka import is_property
from .stream_settings import StreamSettings
from .variables import JOB_VARIABLES, SHARED_VARIABLES, STREAM_VARIABLES, prefix, variable

FOREIGN = ("OTEL_", "TOKENIZERS_", "DAGSTER_", "CELERY_", "AIRFLOW_")
"""Prefixes of well-known software. TOKENIZERS_PARALLELISM is not a misspelt setting of a stream `tokenizer`."""
_NAME_SIMILARITY = 0.8
"""How alike a word and a stream's or job's name must be to count as a misspelling. PRCIE and PRICE are."""
_SETTING_SIMILARITY = 0.75
_SETTINGS = {**STREAM_VARIABLES, **JOB_VARIABLES}


def misspelt(variables: Iterable[str], own: set[str], job_of_stream: Mapping[str, str]) -> dict[str, str]:
    """Variable → the problem, for names that resemble a setting. `own` are the names of real settings."""
    names = list(dict.fromkeys([*job_of_stream, *job_of_stream.values()]))
    problems = {}
    for key in variables:
        if key.startswith(FOREIGN) or key in own:
            continue
        problem = (
            _unit_in_name(key)
            or _wrong_level(key, names, job_of_stream)
            or _misspelt_name(key, names, job_of_stream)
            or _misspelt_setting(key, names, job_of_stream)
        )
        if problem:
            problems[key] = problem
    return problems


def _unit_in_name(key: str) -> str:
    """BATCH_TIMEOUT_SECONDS: the field has the unit in its name, its variable does not."""
    field = key.lower()
    fields = StreamSettings.model_fields | JobSettings.model_fields
    return f"sets nothing: the name is {variable(field)}" if field in fields else ""


def _wrong_level(key: str, names: Iterable[str], job_of_stream: Mapping[str, str]) -> str:
    """HUMIDITY_PARALLELISM where the stream `humidity` is in the job `sites`, or SITES_BATCH_SIZE."""
    for name in names:
        setting = key.removeprefix(prefix(name))
        if setting != key and setting in _SETTINGS:
            right = _override(name, setting, job_of_stream)
            if setting in JOB_VARIABLES:
                return f"cannot be set for one stream of a job: the name is {right}"
            return f"cannot be set for a job, only for its streams: a name is {right}"
    return ""


def _misspelt_name(key: str, names: Iterable[str], job_of_stream: Mapping[str, str]) -> str:
    """PRCIE_BATCH_SIZE. EMBEDDING_BATCH_SIZE resembles no stream and no job, and may belong to other software."""
    for setting in _SETTINGS:
        if key.endswith(f"_{setting}"):
            word = key.removesuffix(f"_{setting}").lower()
            if near := get_close_matches(word, names, n=1, cutoff=_NAME_SIMILARITY):
                return f"names no stream and no job: the nearest name is {_override(near[0], setting, job_of_stream)}"
    return ""


def _misspelt_setting(key: str, names: Iterable[str], job_of_stream: Mapping[str, str]) -> str:
    """PRICE_BATCH_SIZ, or PRICE_LOG_FORMAT, which only exists for all streams."""
    for name in names:
        setting = key.removeprefix(prefix(name))
        if setting == key:
            continue
        if setting in SHARED_VARIABLES or is_property(setting):
            return f"cannot be set for one {'stream' if name in job_of_stream else 'job'}: {setting} holds for all"
        near = get_close_matches(setting, _SETTINGS, n=1, cutoff=_SETTING_SIMILARITY)
        if near:
            return f"sets nothing: the nearest name is {_override(name, near[0], job_of_stream)}"
    return ""


def _override(name: str, setting: str, job_of_stream: Mapping[str, str]) -> str:
    """The variable that sets `setting` for a stream or job. For a setting of streams, the job's first stream."""
    if setting in JOB_VARIABLES:
        return prefix(job_of_stream.get(name, name)) + setting
    first = name if name in job_of_stream else next(stream for stream, job in job_of_stream.items() if job == name)
    return prefix(first) + setting

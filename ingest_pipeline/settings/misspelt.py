"""Misspelt settings: variables without an effect whose names resemble a setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from .kafka import is_property
from .stream_settings import StreamSettings
from .variables import SHARED_VARIABLES, STREAM_VARIABLES, stream_prefix, variable

FOREIGN = ("OTEL_", "TOKENIZERS_", "DAGSTER_", "CELERY_", "AIRFLOW_")
"""Prefixes of well-known software. TOKENIZERS_PARALLELISM is not a misspelt setting of a stream `tokenizer`."""
_STREAM_SIMILARITY = 0.8
"""How alike a word and a stream's name must be to count as a misspelling. PRCIE and PRICE are."""
_SETTING_SIMILARITY = 0.75


def misspelt(variables: Iterable[str], own: set[str], stream_names: Sequence[str]) -> dict[str, str]:
    """Variable → the problem, for names that resemble a setting. `own` are the names of real settings."""
    problems = {}
    for key in variables:
        if key.startswith(FOREIGN) or key in own:
            continue
        problem = _unit_in_name(key)
        if stream_names and not problem:
            problem = _misspelt_stream(key, stream_names) or _misspelt_setting(key, stream_names)
        if problem:
            problems[key] = problem
    return problems


def _unit_in_name(key: str) -> str:
    """BATCH_TIMEOUT_SECONDS: the field has the unit in its name, its variable does not."""
    field = key.lower()
    return f"sets nothing: the name is {variable(field)}" if field in StreamSettings.model_fields else ""


def _misspelt_stream(key: str, stream_names: Sequence[str]) -> str:
    """PRCIE_BATCH_SIZE. EMBEDDING_BATCH_SIZE resembles no stream and may belong to other software."""
    for setting in STREAM_VARIABLES:
        if key.endswith(f"_{setting}"):
            word = key.removesuffix(f"_{setting}").lower()
            if near := get_close_matches(word, stream_names, n=1, cutoff=_STREAM_SIMILARITY):
                return f"names no stream: the nearest name is {stream_prefix(near[0])}{setting}"
    return ""


def _misspelt_setting(key: str, stream_names: Sequence[str]) -> str:
    """PRICE_BATCH_SIZ, or PRICE_LOG_FORMAT, which only exists for all streams."""
    for name in stream_names:
        setting = key.removeprefix(stream_prefix(name))
        if setting == key:
            continue
        if setting in SHARED_VARIABLES or is_property(setting):
            return f"cannot be set for one stream: {setting} holds for all"
        near = get_close_matches(setting, STREAM_VARIABLES, n=1, cutoff=_SETTING_SIMILARITY)
        if near:
            return f"sets nothing: the nearest name is {stream_prefix(name)}{near[0]}"
    return ""

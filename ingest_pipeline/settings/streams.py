"""Which streams there are: the list that INGEST_STREAMS names, that of streams.py unless it is set."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from ..core.errors import SettingsError
from ..core.stream import Stream, by_name
from .load import streams_import_path


def load_streams() -> list[Stream]:
    """The streams, imported when first asked for; the current directory is looked in after what is installed.

    Raises:
        SettingsError: they cannot be had; says where and why.
    """
    place = streams_import_path()
    module_name, _, name = place.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except SettingsError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            where = "neither installed nor in the current directory"
            raise SettingsError(f"INGEST_STREAMS is {place}, but module {error.name} is {where}") from error
        raise SettingsError(f"{_where(module_name, error)}: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        raise SettingsError(f"INGEST_STREAMS is {place}, but {module_name} has no {name}")
    found = getattr(module, name)
    if not isinstance(found, Iterable):
        raise SettingsError(f"INGEST_STREAMS is {place}, but that is a {type(found).__name__}, not a list of streams")
    return list(by_name(found).values())


def _where(module_name: str, error: Exception) -> str:
    """The file of the module, and the line where it happened; the module where no line is known."""
    file = module_name.rpartition(".")[2] + ".py"
    at = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        at.append((error.filename or "", error.lineno))
    lines = [line for name, line in at if Path(name).name == file]
    return f"{file}, line {lines[-1]}" if lines else module_name

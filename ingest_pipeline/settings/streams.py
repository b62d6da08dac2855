"""The list of streams that INGEST_STREAMS names. Without the variable, the list in streams.py."""

import importlib
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from ..core.errors import SettingsError
from ..core.stream import Stream
from ..core.streams import by_name
from .load import streams_import_path


def load_streams() -> list[Stream]:
    """Imports the list. The current directory is searched after the installed packages.

    Raises:
        SettingsError: the import failed. The message has the file, the line and the reason.
    """
    import_path = streams_import_path()
    module_name, _, name = import_path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except SettingsError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise SettingsError(
                f"INGEST_STREAMS is {import_path}, but module {error.name} is neither installed nor in the current"
                " directory"
            ) from error
        raise SettingsError(f"{_location(module_name, error)}: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        raise SettingsError(f"INGEST_STREAMS is {import_path}, but {module_name} has no {name}")
    streams = getattr(module, name)
    if not isinstance(streams, Iterable):
        raise SettingsError(
            f"INGEST_STREAMS is {import_path}, but {name} is a {type(streams).__name__}, not a list of streams"
        )
    return list(by_name(streams).values())


def _location(module_name: str, error: Exception) -> str:
    """The module's file and the last of its lines in the traceback. Without such a line, the module's name."""
    file = module_name.rpartition(".")[2] + ".py"
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or "", error.lineno))
    lines = [line for name, line in frames if Path(name).name == file]
    return f"{file}, line {lines[-1]}" if lines else module_name

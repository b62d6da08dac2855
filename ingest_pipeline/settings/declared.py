"""Settings that a stream declares: `Stream("price", Price, settings={"batch_size": 5000})`."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from ..core.column_names import TableName
from ..core.errors import SettingsError
from ..core.stream import Stream
from ..core.streams import check_shared, tables_of
from .job_settings import JobSettings
from .load import load_settings
from .model import Settings
from .stream_settings import StreamSettings
from .variables import prefix, variable

SETTINGS = {**StreamSettings.model_fields, **JobSettings.model_fields}
"""Name → field, for the settings that a stream may declare."""


def settings_of(streams: Iterable[Stream], environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of these streams and their jobs, from the environment and from their declarations.

    Raises:
        SettingsError: see `load_settings`, a declaration has an unknown setting, or streams cannot share a table.
    """
    streams = list(streams)
    declared: dict[str, str] = {}
    for stream in streams:
        for name, value in stream.settings.items():
            key = prefix(stream.job if name in JobSettings.model_fields else stream.name) + _variable(stream, name)
            text = str(int(value)) if isinstance(value, bool) else str(value)
            if declared.setdefault(key, text) != text:
                raise SettingsError(
                    f"stream {stream.name}: {name} is {text}, but another stream of job {stream.job} declares"
                    f" {declared[key]}, and the streams of a job share its runs"
                )
    settings = load_settings({stream.name: stream.job for stream in streams}, environ, declared=declared)
    _check_shared_tables(streams, settings.database_schema)
    return settings


def _check_shared_tables(streams: Iterable[Stream], database_schema: str) -> None:
    """`readings` and `public.readings` are one table if DATABASE_SCHEMA is public."""
    owners: dict[TableName, Stream] = {}
    for table in tables_of(streams):
        name = table.table_name.within(database_schema)
        other = owners.setdefault(name, table)
        if other is not table:
            check_shared(other, table, name)


def _variable(stream: Stream, name: str) -> str:
    if name in SETTINGS:
        return variable(name)
    near = get_close_matches(name, SETTINGS, n=1)
    hint = f". Did you mean {near[0]}?" if near else ""
    raise SettingsError(f"stream {stream.name}: {name!r} is no setting of a stream or of a job{hint}")

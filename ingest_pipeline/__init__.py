"""Kafka topics into PostgreSQL tables, exactly once, in micro-batches run by Dagster.

``kafka``, ``postgres`` and ``orchestration`` (Dagster) wrap the outside systems. ``core`` is plain Python and
imports no client. ``streams.py`` declares the streams. Dagster loads ``definitions.py``. Other projects use
``from ingest_pipeline import Stream, build_definitions``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.fields import AsJson as AsJson
    from .core.formats import Avro as Avro
    from .core.formats import Csv as Csv
    from .core.formats import Json as Json
    from .core.formats import JsonSchema as JsonSchema
    from .core.formats import Protobuf as Protobuf
    from .core.route import Route as Route
    from .core.stream import Stream as Stream
    from .core.time_forms import Epoch as Epoch
    from .core.time_forms import TimeFormat as TimeFormat
    from .orchestration.build import build_definitions as build_definitions
    from .orchestration.components.kafka_to_postgres import KafkaToPostgres as KafkaToPostgres
    from .orchestration.components.kafka_to_postgres import project_streams as project_streams

_MODULES = {
    "AsJson": ".core.fields",
    "Avro": ".core.formats",
    "Csv": ".core.formats",
    "Epoch": ".core.time_forms",
    "Json": ".core.formats",
    "JsonSchema": ".core.formats",
    "KafkaToPostgres": ".orchestration.components.kafka_to_postgres",
    "Protobuf": ".core.formats",
    "Route": ".core.route",
    "Stream": ".core.stream",
    "TimeFormat": ".core.time_forms",
    "build_definitions": ".orchestration.build",
    "project_streams": ".orchestration.components.kafka_to_postgres",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name on first use. A command that does not need Dagster does not import it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    """The public names too, which Dagster's `dg list components` searches for components."""
    return sorted([*globals(), *__all__])

"""The Component `ingest_pipeline.KafkaToPostgres`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster.components.component_scaffolding import scaffold_component
from pydantic import BaseModel, ValidationError

from ...core.errors import SettingsError
from ...core.stream import Stream
from ...operations.clients import Clients
from ...settings import settings_of
from ..build import Location
from .attributes import attributes_model, stream_of


class _Scaffolder(dg.Scaffolder[Any]):
    """Writes the defs.yaml of a stream with the folder's name."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        name = re.sub(r"\W", "_", request.target_path.name).lower()
        fields = {"id": "str", "value": "float | None", "event_time": {"type": "datetime", "key": "timestamp"}}
        scaffold_component(request, {"name": name, "topic": name, "fields": fields})


@dg.scaffold_with(_Scaffolder)
class KafkaToPostgres(dg.Component):
    """A stream: one Kafka topic drained into one PostgreSQL table, exactly once.

    The components of a project share their clients, the maintenance job and the jobs for recovery. The definitions that
    they share belong to the first component, and those of a job to the job's first component.
    """

    def __init__(self, stream: Stream, origin: str = "") -> None:
        self.stream, self._origin = stream, origin
        self._location: tuple[list[KafkaToPostgres], Location] | None = None

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(
            tags=["kafka", "postgres"], produces=["asset", "asset_check", "schedule", "sensor", "job"]
        )

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return attributes_model()

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> KafkaToPostgres:
        try:
            return cls(stream_of(_rendered(attributes, context)), _origin(context, ()))
        except SettingsError as error:
            raise SettingsError(f"{_origin(context, error.where.get('path', ()))}: {error.message}") from None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        components = context.component_tree.get_all_components(of_type=KafkaToPostgres)
        location = components[0].location(components)
        [first_of_job, *_] = (item for item in components if item.stream.job == self.stream.job)
        parts = [location.of_job(self.stream.job)] if self is first_of_job else []
        return dg.Definitions.merge(*parts, *([location.of_all()] if self is components[0] else []))

    def location(self, components: list[KafkaToPostgres]) -> Location:
        """The definitions of all components, made once."""
        if self._location is None or self._location[0] != components:
            streams = [component.stream for component in components]
            try:
                location = Location(Clients(settings_of(streams)), streams)
            except SettingsError as error:
                raise SettingsError(error.message + _origins(error.message, components)) from None
            self._location = components, location
        return self._location[1]


def project_streams(path_within_project: str | Path) -> list[Stream]:
    """The streams of a project's components, for INGEST_STREAMS: `STREAMS = project_streams(__file__)`."""
    tree = dg.ComponentTree.for_project(Path(path_within_project))
    return [component.stream for component in tree.get_all_components(of_type=KafkaToPostgres)]


def _rendered(attributes: BaseModel | None, context: dg.ComponentLoadContext) -> BaseModel:
    """The attributes with the values of their templates, such as `{{ env.TOPIC }}`."""
    if attributes is None:
        raise SettingsError("attributes are missing: name and fields at least")
    values = attributes.model_dump(exclude_unset=True)
    rendered = context.resolution_context.at_path("attributes").resolve_value(values)
    try:
        return type(attributes).model_validate(rendered)
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False)
        raise SettingsError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", path=first["loc"]) from None


def _origin(context: dg.ComponentLoadContext, path: Sequence[str | int]) -> str:
    """The file and the line of these keys below `attributes`."""
    tree = context.resolution_context.source_position_tree
    if tree is None:
        return "attributes"
    position, _ = tree.lookup_closest_and_path(["attributes", *path], None)
    return f"{os.path.relpath(position.filename, context.project_root)}:{position.start.line}"


def _origins(message: str, components: Sequence[KafkaToPostgres]) -> str:
    """The files of the streams that a message names."""
    named = [item for item in components if re.search(rf"\b{item.stream.name}\b", message)]
    return "".join(f"\n  stream {item.stream.name}: {item._origin}" for item in named)

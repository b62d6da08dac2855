"""The tree of errors: what it promises to those who catch and to those who carry errors between processes."""

import inspect
import pickle

import pytest

from ingest_pipeline.core import errors
from ingest_pipeline.core.errors import EnvironmentFault, IngestError, RecordRefused, StopStream, Superseded

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, IngestError)]


@pytest.mark.parametrize("kind", ALL)
def test_an_error_survives_pickling_with_its_attributes(kind: type[IngestError]) -> None:
    error = kind("what happened", stream="price", partition=1, offset=7, sqlstate="23514", index=3, stage="insert")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.where) == (str(error), error.where)
    assert (again.stream, again.partition, again.offset, again.sqlstate) == ("price", 1, 7, "23514")


@pytest.mark.parametrize("kind", ALL)
def test_every_leaf_is_drawn_in_the_tree(kind: type[IngestError]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")


def test_an_error_has_one_way_to_be_dealt_with() -> None:
    ways = (EnvironmentFault, StopStream, RecordRefused, Superseded)
    for kind in ALL:
        assert sum(issubclass(kind, way) for way in ways) <= 1

"""Loads settings from a given environment, for the tests of settings."""

import pytest

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.settings import Settings, load_settings

STREAMS = ("price", "temperature")
CANARY = "cAnArY-51"


def load(**environ: str) -> Settings:
    """The settings of STREAMS from these variables alone."""
    return load_settings(STREAMS, environ)


def problems(**environ: str) -> dict[str, str]:
    """Variable → its line in the error. The error has no cause."""
    with pytest.raises(SettingsError) as caught:
        load_settings(STREAMS, environ)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    first, *lines = str(caught.value).splitlines()
    assert first == f"{len(lines)} setting{'s' if len(lines) > 1 else ''} cannot be used:"
    return dict(line.strip().split(" ", 1) for line in lines)

"""The streams of the YAML files, for the commands: INGEST_STREAMS=dg_project.streams:STREAMS."""

from ingest_pipeline import project_streams

STREAMS = project_streams(__file__)

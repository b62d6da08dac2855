"""The product's streams in one job, for INGEST_STREAMS."""

from dataclasses import replace

from ingest_pipeline.streams import STREAMS as OWN_JOBS

STREAMS = [replace(stream, job="shared") for stream in OWN_JOBS]

"""A code location for `dagster dev`: the shipped streams, on topics that TEST_TOPIC_SUFFIX makes a test's own."""

import os
from dataclasses import replace

import dagster as dg

from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.streams import STREAMS

SUFFIX = "TEST_TOPIC_SUFFIX"
streams = [replace(stream, topic=stream.topic + os.environ.get(SUFFIX, "")) for stream in STREAMS]
defs = dg.Definitions.merge(build_definitions(streams), dg.Definitions(executor=dg.in_process_executor))

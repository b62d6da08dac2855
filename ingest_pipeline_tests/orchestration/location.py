"""A code location for `dagster dev`: the shipped streams, on topics that TEST_TOPIC_SUFFIX makes a test's own.

TEST_JOBS_FILE names a JSON file: stream → job. TEST_SILENT_TOPIC adds a stream that must not be silent for long.
TEST_FIELD names a field that the temperatures have in addition, a text or null.
"""

import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import msgspec

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.streams import STREAMS, Temperature

SUFFIX, JOBS_FILE, SILENT_TOPIC = "TEST_TOPIC_SUFFIX", "TEST_JOBS_FILE", "TEST_SILENT_TOPIC"
FIELD = "TEST_FIELD"
SILENCE = timedelta(seconds=75)
jobs = json.loads(Path(os.environ[JOBS_FILE]).read_text()) if JOBS_FILE in os.environ else {}
streams = [
    replace(stream, topic=stream.topic + os.environ.get(SUFFIX, ""), job=jobs.get(stream.name, ""))
    for stream in STREAMS
]
if FIELD in os.environ:
    fields = [(os.environ[FIELD], str | None, None)]
    streams[0] = replace(streams[0], event=msgspec.defstruct("Temperature", fields, bases=(Temperature,)))
if SILENT_TOPIC in os.environ:
    streams.append(Stream("silent", Temperature, topic=os.environ[SILENT_TOPIC], max_silence=SILENCE))
defs = dg.Definitions.merge(build_definitions(streams), dg.Definitions(executor=dg.in_process_executor))

"""A code location for `dagster dev`: temperatures that must not be silent for long, on a topic of the test's own."""

import os
from dataclasses import replace
from datetime import timedelta

from ingest_pipeline.core.streams import by_name
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.streams import STREAMS

SILENCE = timedelta(seconds=75)
stream = replace(by_name(STREAMS)["temperature"], topic=os.environ["TEST_TOPIC"], max_silence=SILENCE)
defs = build_definitions([stream])

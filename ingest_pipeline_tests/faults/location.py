"""A code location with one stream for every way in which a run's process can lose touch; topics are named alike, but
for what TEST_TOPIC_SUFFIX adds."""

import os
from datetime import datetime

from msgspec import Struct, field

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration.build import build_definitions

SUFFIX = "TEST_TOPIC_SUFFIX"


class Reading(Struct):
    """What all of these streams carry."""

    device_id: str
    temperature: float
    event_time: datetime = field(name="timestamp")


NAMES = ("idle", "between", "copying", "cut", "disowned")
STREAMS = [Stream(name, Reading, topic=name + os.environ.get(SUFFIX, "")) for name in NAMES]
defs = build_definitions(STREAMS)

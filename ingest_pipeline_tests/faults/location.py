"""A code location with one stream for every way in which a run's process can lose contact. TEST_TOPIC_SUFFIX is
appended to every topic name.
"""

import os
from datetime import datetime

from msgspec import Struct, field

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration.build import build_definitions

SUFFIX = "TEST_TOPIC_SUFFIX"


class Reading(Struct):
    """The event type of all these streams."""

    device_id: str
    temperature: float
    event_time: datetime = field(name="timestamp")


NAMES = ("idle", "between", "copying", "cut", "disowned")
STREAMS = [Stream(name, Reading, topic=name + os.environ.get(SUFFIX, "")) for name in NAMES]
defs = build_definitions(STREAMS)

"""Many streams in one job, for INGEST_STREAMS. CHAOS_STREAMS is their number, and CHAOS_JOB their job.

Beside them the job has the stream `doomed`, whose topic a fault deletes.
"""

import os
from dataclasses import replace

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.streams import STREAMS as SHIPPED

DOOMED = "doomed"


def named(stream: Stream, name: str, job: str) -> Stream:
    return replace(stream, name=name, topic=name, table=name, topic_asset="", job=job)


def streams(count: int, job: str) -> list[Stream]:
    """`temperature`, `price`, `temperature_2`, … and `doomed`."""
    names = [(SHIPPED[number % 2], number // 2 + 1) for number in range(count)]
    many = [named(stream, stream.name if copy == 1 else f"{stream.name}_{copy}", job) for stream, copy in names]
    return [*many, named(SHIPPED[0], DOOMED, job)]


if "CHAOS_STREAMS" in os.environ:
    STREAMS = streams(int(os.environ["CHAOS_STREAMS"]), os.environ["CHAOS_JOB"])

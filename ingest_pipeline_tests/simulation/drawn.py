"""What an example draws: settings, records, faults, and which stream, partition or process they concern."""

from typing import Any

from hypothesis import strategies as st

from ingest_pipeline.settings import Settings
from ingest_pipeline.testing import Fault
from ingest_pipeline_tests.simulation.database import REFUSALS
from ingest_pipeline_tests.simulation.model import BROKEN, GOOD, REFUSED, TOMBSTONE
from ingest_pipeline_tests.simulation.world import changed_settings

KINDS = st.lists(st.sampled_from([GOOD, GOOD, GOOD, BROKEN, REFUSED, TOMBSTONE]), min_size=1, max_size=8)
REGROWN = st.one_of(st.just([]), KINDS)
# No st.integers: Hypothesis mixes numbers that stand in the code into those, so an edit anywhere would change examples.
PARTITION = st.sampled_from(range(3))
DEFAULTS = Settings()
ONLY = st.sampled_from([None, None, 0, 1])
STREAM = st.sampled_from(range(4))
JOB = st.sampled_from(range(4))
SHARE = st.sampled_from([0.0, 0.3, 0.6, 1.0])
POINTS = ["begin", "own", "read", "decode", "write", "written", "acknowledge", "heartbeat", "recover", "sleep", "store"]
DEATHS = st.sampled_from([*POINTS, "accept", *(fault.value for fault in Fault)])
BREAKS = st.lists(st.sampled_from([None, *Fault, *REFUSALS]), min_size=1, max_size=4)


def settings_of(**own: Any) -> Settings:
    """Settings of the stream and its job. The smallest batches are smaller than an operator may set."""
    return changed_settings(DEFAULTS, **{"run_max_seconds": 20, "dead_letter_max_ratio": 1.0, **own})


OWN = st.builds(
    settings_of,
    parallelism=st.sampled_from([1, 2]),
    batch_size=st.sampled_from(range(1, 7)),
    batch_bytes=st.sampled_from([60, 150, 1 << 20]),  # less than a record's; less than two records'
    batch_timeout_seconds=st.sampled_from([0.01, 0.3, 2.0]),
    run_idle_seconds=st.sampled_from([0, 1, 5, 60]),
    run_max_seconds=st.sampled_from([20, 20, 120]),
    run_max_batches=st.sampled_from([0, 0, 2]),
    retry_seconds=st.sampled_from([0, 30]),
    on_data_loss=st.sampled_from(["stop", "stop", "continue"]),
    tombstones=st.sampled_from(["skip", "skip", "dead-letter"]),
    dead_letter_limit=st.sampled_from(["on", "off"]),
    dead_letter_max_consecutive=st.sampled_from([1, 3]),
    records_per_commit=st.sampled_from([1, 20]),
)

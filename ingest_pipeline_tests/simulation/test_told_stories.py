"""What an example may or may not meet, as sequences of rules that meet it."""

from collections import Counter

import pytest

from ingest_pipeline.core.errors import IngestError, StopStream
from ingest_pipeline_tests.simulation.database import REFUSALS
from ingest_pipeline_tests.simulation.drawn import settings_of
from ingest_pipeline_tests.simulation.model import GOOD
from ingest_pipeline_tests.simulation.scene import simulation


@pytest.mark.parametrize("refusal", REFUSALS)
def test_each_error_of_a_write_is_retried_or_ends_the_run(refusal: type[IngestError]) -> None:
    with simulation() as state:
        state.break_writes(breaks=[refusal])
        state.produce_and_work(partition=0, kinds=[GOOD] * 2, points=100)
        stops = issubclass(refusal, StopStream)
        assert state.world.count[f"refused: {refusal.__name__}"] == 1
        assert state.world.count[f"run ended: failed:{refusal.__name__}"] == stops
        assert len(state.stream().table.rows) == (0 if stops else 2)
        state.work(ticks=2, points=100)
        assert len(state.stream().table.rows) == 2


def test_a_live_run_notices_a_re_created_topic_at_its_next_look() -> None:
    """Its positions are within the new topic: no error tells. What it stores meanwhile is stored again as the new
    topic's, which is known; every other record is in the table once."""
    with simulation(settings_of(run_idle_seconds=60, run_max_seconds=120)) as state:
        state.produce_and_work(partition=0, kinds=[GOOD] * 3, points=40)
        state.recreate(partitions=1, regrown=[GOOD], rounds=1)
        state.work(ticks=6, points=40)
        assert state.world.count["run ended: failed:TopicChanged"] == 1
        state.accept_loss(start=None, only=None)
    stored = Counter(row[4] for row in state.stream().table.rows.values())
    assert state.world.count["stored as of the topic before"] == sum(count - 1 for count in stored.values()) == 1


def test_what_is_left_of_a_cut_log_is_stored_again_as_the_acceptance_says() -> None:
    with simulation() as state:
        state.produce_and_work(partition=0, kinds=[GOOD] * 5, points=100)
        state.lose(how="truncate", partition=0, share=0.6, regrown=[])
        state.tick(seconds=5.0)
        state.accept_loss(start=None, only=None)
    assert state.world.count["stored again, as was said"] == 2


def test_a_report_about_a_deleted_topic_does_not_end_a_shared_run() -> None:
    own = settings_of(
        parallelism=1, batch_size=1, batch_bytes=60, batch_timeout_seconds=0.01, run_idle_seconds=0, retry_seconds=0
    )
    with simulation(own, streams=2) as state:
        state.produce_and_work(partition=0, kinds=[GOOD], points=5)
        state.produce_and_work(partition=0, kinds=[GOOD], points=15)
        state.delete_topic(ticks=1, points=5, regrown=[], stream=1)
        assert not state.world.count["run ended: failed:TopicMissing"]

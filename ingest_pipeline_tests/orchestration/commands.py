"""`ingest …` on a bench's streams and settings, in this process."""

from __future__ import annotations

import signal

import pytest
from click.testing import CliRunner, Result

from ingest_pipeline import streams
from ingest_pipeline.cli import main
from ingest_pipeline_tests.orchestration.bench import Bench


def interruptible() -> None:
    """For a child's `preexec_fn`: one started by a background job would ignore SIGINT for ever."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ingest(bench: Bench, *words: str, code: int = 0) -> str:
    """What the command prints, both streams of output together; its exit code is compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "STREAMS", list(bench.streams))
        result: Result = CliRunner().invoke(main.main, list(words), env=dict(bench.environ))
    assert result.exit_code == code, result.output
    return result.output

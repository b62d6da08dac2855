"""`ingest …` on a bench's streams and settings, in this process and with the rights of an operator."""

import signal

import pytest
from click.testing import CliRunner, Result

from ingest_pipeline.cli import main
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline_tests.declared import declare
from ingest_pipeline_tests.orchestration.bench import Bench


def interruptible() -> None:
    """For a child's `preexec_fn`: one started by a background job would ignore SIGINT for ever."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ingest(bench: Bench, *words: str, code: int = 0, clients: Clients | None = None) -> str:
    """What the command prints, both streams of output together; its exit code is compared.

    Args:
        clients: None: made from the settings, as by a command.
    """
    with pytest.MonkeyPatch.context() as patch:
        declare(patch, bench.streams)
        result: Result = CliRunner().invoke(main.main, list(words), env=dict(bench.operator_environ()), obj=clients)
    assert result.exit_code == code, result.output
    return result.output

"""`ingest` as somebody at a terminal meets it: errors of one line and a hint, completion, colours. Needs no server."""

import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner
from rich.console import Console

from ingest_pipeline.cli import main, status
from ingest_pipeline.operations.judgement import StreamStatus
from ingest_pipeline.operations.partition_status import PartitionStatus

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("ingest")
NOWHERE = "postgresql://somebody:hunter2@127.0.0.1:9/events"
FAILING = {
    "a broken DATABASE_URL": (
        {"DATABASE_URL": "postgresq://x"},
        ["tail", "price"],
        "DATABASE_URL must be postgresql://",
    ),
    "a wrong setting": ({"BATCH_SIZE": "many"}, ["schema", "price"], "BATCH_SIZE must be a whole number"),
    "a missing setting": (
        {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": "PLAIN"},
        ["simulate", "--records", "1"],
        "KAFKA_SASL_USERNAME must be set, since KAFKA_SASL_MECHANISM is PLAIN",
    ),
    "no PostgreSQL": ({"DATABASE_URL": NOWHERE}, ["tail", "price"], "PostgreSQL is not reachable"),
    "no range": ({}, ["replay", "price"], "a replay needs a first and a last offset"),
    "a wrong setting, in a group": ({"BATCH_SIZE": "0"}, ["dead-letters", "list", "price"], "BATCH_SIZE must be"),
}


def run(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    return subprocess.run([SCRIPT, *words], env={**kept, **environ}, text=True, capture_output=True)


@pytest.mark.parametrize(("environ", "words", "message"), FAILING.values(), ids=FAILING)
def test_an_error_has_a_hint_and_no_traceback(
    environ: dict[str, str], words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main.main, words, env=environ)
    *error, hint = done.stderr.splitlines()
    assert (done.exit_code, done.stdout) == (1, "")
    assert error[0].startswith("Error: ")
    assert message in done.stderr
    assert hint.startswith("Hint: `ingest ")
    assert "Traceback" not in done.stderr and "hunter2" not in done.stderr
    shown = CliRunner().invoke(main.main, ["--traceback", *words], env=environ)
    assert shown.exit_code == (3 if words[0] == "status" else 1)
    assert shown.stderr.startswith("Traceback")
    assert "hunter2" not in shown.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("STREAMS = [", "line 1: SyntaxError: '[' was never closed"),
        ("\nSTREAMS = [temperature]", "line 2: NameError: name 'temperature' is not defined"),
        ("from ingest_pipeline import Stream\nSTREAMS = [Stream('Price', int)]", "stream 'Price': a name is"),
        (
            "from ingest_pipeline import Stream\nSTREAMS = [..., Stream]",
            "item 1 of STREAMS is Ellipsis, not Stream(name",
        ),
    ],
)
def test_a_mistake_in_streams_py_is_one_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "streams.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "streams", None)  # forgets what the test imports
    del sys.modules["streams"]
    monkeypatch.setenv("INGEST_STREAMS", "streams:STREAMS")
    result = CliRunner().invoke(main.main, ["pause", "price"])
    assert result.exit_code == 1
    assert message in result.output
    assert CliRunner().invoke(main.main, ["--help"]).exit_code == 0


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        (["status"], {"BATCH_SIZE": "many"}),
        (["status"], {"INGEST_STREAMS": "nowhere:STREAMS"}),
        (["status", "--jsn"], {}),
        (["status", "prices"], {}),
        (["status", "--json", "--watch"], {}),
    ],
)
def test_an_unknown_status_has_an_exit_code_of_its_own(words: list[str], environ: dict[str, str]) -> None:
    assert CliRunner().invoke(main.main, words, env=environ).exit_code == 3
    assert CliRunner().invoke(main.main, ["tail", "--jsn"]).exit_code == 2


def test_an_unexpected_error_is_reported_by_its_class_alone() -> None:
    class BrokenClients:
        def ledger(self, _: object) -> NoReturn:
            raise LookupError("hunter2")

    result = CliRunner().invoke(main.main, ["resume", "price"], obj=BrokenClients())
    assert (result.exit_code, result.output) == (
        1,
        "Error: unexpected error LookupError\nHint: `ingest --traceback resume …` shows where.\n",
    )
    shown = CliRunner().invoke(main.main, ["--traceback", "resume", "price"], obj=BrokenClients())
    assert shown.exit_code == 1 and "LookupError: hunter2" in shown.output


def test_a_misspelt_command_suggests_the_right_command() -> None:
    done = run({}, "stauts")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no command 'stauts'. Did you mean 'status'?" in done.stderr
    assert "No such command 'xyz'" in CliRunner().invoke(main.main, ["xyz"]).output
    assert "'redrive'" in CliRunner().invoke(main.main, ["dead-letters", "redirve"]).output


def test_the_version_is_that_of_the_package() -> None:
    assert run({}, "--version").stdout == f"ingest, version {version('ingest-pipeline')}\n"


def test_make_help_has_its_texts_in_a_column() -> None:
    lines = subprocess.run(["make", "help"], cwd=ROOT, text=True, capture_output=True, check=True).stdout.splitlines()
    starts = {len(match[0]) for line in lines if (match := re.match(r"  make \S+ +", line))}
    assert len(starts) == 1 and len(lines) > 10


COMPLETED = {
    ("ingest", "re"): ["replay", "resume"],
    ("ingest", "pause", ""): ["temperature", "price"],
    ("ingest", "tail", "te"): ["temperature"],
    ("ingest", "dead-letters", "re"): ["redrive"],
    ("ingest", "dead-letters", "redrive", "pr"): ["price"],
    ("ingest", "dead-letters", "list", "--stage", "de"): ["decode"],
    ("ingest", "status", "--w"): ["--watch"],
    ("ingest", "status", "price", "t"): ["temperature"],
}


def test_bash_completes() -> None:
    """With the script that docs/operations.md has people source."""
    asked = "\n".join(
        f"""COMPREPLY=() COMP_WORDS=({" ".join(word or "''" for word in words)}) COMP_CWORD={len(words) - 1}
        _ingest_completion ingest
        echo ${{COMPREPLY[@]}}"""
        for words in COMPLETED
    )
    script = f"""PATH={SCRIPT.parent}:$PATH
        eval "$(_INGEST_COMPLETE=bash_source ingest)"
        {asked}"""
    done = subprocess.run(["bash", "-c", script], text=True, capture_output=True)
    assert [line.split() for line in done.stdout.splitlines()] == list(COMPLETED.values())
    assert done.stderr == ""


@pytest.mark.parametrize(("shell", "more"), [("zsh", {"COMP_CWORD": "2"}), ("fish", {"COMP_CWORD": "te"})])
def test_zsh_and_fish_ask_for_the_same(shell: str, more: dict[str, str]) -> None:
    environ = {"_INGEST_COMPLETE": f"{shell}_complete", "COMP_WORDS": "ingest pause te", **more}
    assert "temperature" in run(environ).stdout.replace(",", "\n").splitlines()
    assert "_INGEST_COMPLETE" in run({"_INGEST_COMPLETE": f"{shell}_source"}).stdout


def on_a_terminal(environ: dict[str, str], *words: str, program: Path | str = SCRIPT) -> str:
    """What the program writes to a terminal."""
    ours, its = pty.openpty()
    environ = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", **environ}
    with subprocess.Popen([program, *words], env=environ, stdin=its, stdout=its, stderr=its):
        os.close(its)
        written = b""
        while piece := _read(ours):
            written += piece
    os.close(ours)
    return written.decode()


def _read(terminal: int) -> bytes:
    """Linux says EIO, macOS nothing, when the other side has gone."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_colours_are_for_terminals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"DATABASE_URL": NOWHERE}
    shown, piped = on_a_terminal(environ, "status"), run(environ, "status")
    assert "\x1b[35munknown\x1b[0m" in shown
    assert "\x1b" not in on_a_terminal({**environ, "NO_COLOR": "1", "TERM": "dumb"}, "status")
    assert "price unknown  lag unknown" in piped.stdout.splitlines()
    assert "price" not in run(environ, "status", "temperature").stdout
    assert "\x1b" not in piped.stdout + piped.stderr
    assert piped.returncode == 3


@pytest.mark.parametrize("width", [80, 120, 140])
def test_status_is_legible_in_a_narrow_terminal(width: int) -> None:
    since = datetime.now().astimezone()
    where = PartitionStatus(
        partition=12,
        next_offset=1_234_567,
        end=1_234_890,
        lag=323,
        rows=1_234_000,
        dead_letters=400,
        owner="0ddba11-and-more",
        owner_since=since,
        committed_at=since,
    )
    written = StringIO()
    console = Console(width=width, file=written)
    console.print(status.drawn([StreamStatus("reading", partitions=[where])], console))
    title, head, line = written.getvalue().splitlines()
    assert title.rstrip() == "reading healthy  lag 323"
    assert "323" in line and f"0ddba11- since {since:%H:%M:%S}" in line
    assert ("position" in head) == ("1,234,567" in line) == (width == 140)


@pytest.mark.parametrize("text", ["2026-01-01", "2026-01-01T00:00:00", "2026-01-01T02:00:00+0200"])
def test_times_are_utc_where_they_name_no_zone(text: str) -> None:
    assert main.Instant().convert(text, None, None) == datetime(2026, 1, 1, tzinfo=UTC)


def test_grants_asks_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"DATABASE_URL": NOWHERE, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9", "PRICE_ADOPT_GROUP": "old-price"}
    done = run(environ, "grants", "--to", "ann", "--principal", "User:CN=ann doe")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert 'GRANT CONNECT ON DATABASE "events" TO "ann";' in lines
    assert 'GRANT SELECT, INSERT ON "public"."price" TO "ann";' in lines
    acl = "kafka-acls.sh --bootstrap-server 127.0.0.1:9 --add --allow-principal 'User:CN=ann doe' --operation"
    assert f"{acl} Read --topic price" in lines
    assert f"{acl} Read --group ingest-price" in lines
    assert f"{acl} Describe --group old-price" in lines
    losing = run({**environ, "PRICE_ON_DATA_LOSS": "continue"}, "grants")
    assert ('GRANT SELECT, INSERT ON "ingest"."gap"' in done.stdout) < ('INSERT ON "ingest"."gap"' in losing.stdout)

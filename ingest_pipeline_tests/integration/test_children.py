"""No child process survives its owner, however the owner ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ingest_pipeline.local.child_process import Child
from ingest_pipeline.local.process_family import Family, processes
from ingest_pipeline.local.server import LocalServerError
from ingest_pipeline_tests.waiting import wait_for

ROOT = Path(__file__).parents[2]

# A stubborn sleeper, and a leader that has three: one in its own session, one of another session, one whose parent
# is gone. Each writes its pid, and the leader also writes how SIGINT was handled.
SLEEPER = """
import os, signal, sys, time
from pathlib import Path
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(600)
"""
LEADER = """
import os, signal, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
found = "default" if signal.getsignal(signal.SIGINT) is signal.default_int_handler else "not default"
sleeper = [sys.executable, str(folder / "sleeper.py")]
subprocess.Popen([*sleeper, str(folder / "same.pid")])
subprocess.Popen([*sleeper, str(folder / "other.pid")], start_new_session=True)
middle = "import subprocess, sys; subprocess.Popen(sys.argv[1:])"
subprocess.run([sys.executable, "-c", middle, *sleeper, str(folder / "orphan.pid")])
(folder / "found").write_text(found)
(folder / "leader.pid").write_text(str(os.getpid()))
time.sleep(600)
"""
OWNER = """
import signal, sys
from pathlib import Path
from ingest_pipeline.local.child_process import Child, StopSignals
folder = Path(sys.argv[1])
with StopSignals() as stop:
    child = Child("tree", [sys.executable, str(folder / "leader.py"), str(folder)], folder / "log")
    try:
        while "fail" in sys.argv:
            if all((folder / f"{name}.pid").exists() for name in ("same", "other", "orphan", "leader")):
                raise SystemExit(3)
        if stop.wait(600):
            (folder / "stopped").touch()
    finally:
        child.stop(grace_seconds=5.0, left_seconds=0.2)
"""


def running(pids: set[int]) -> set[int]:
    return {process.pid for process in processes()} & pids


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name, text in (("sleeper", SLEEPER), ("leader", LEADER), ("owner", OWNER)):
        (tmp_path / f"{name}.py").write_text(text)
    yield tmp_path
    for path in tmp_path.glob("*.pid"):
        if running({int(path.read_text())}):
            os.kill(int(path.read_text()), signal.SIGKILL)


def start_owner(folder: Path, *words: str, background: bool = False) -> "subprocess.Popen[bytes]":
    """Start the owner of the tree. In the background, with SIGINT ignored, as a shell does."""
    command = [sys.executable, str(folder / "owner.py"), str(folder), *words]
    if background:
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True)


def tree(folder: Path) -> set[int]:
    """The pids of the leader and its three sleepers, after all have started."""
    paths = [folder / f"{name}.pid" for name in ("same", "other", "orphan", "leader")]
    wait_for("the tree of processes", lambda: all(path.exists() and path.read_text() for path in paths))
    pids = {int(path.read_text()) for path in paths}
    assert running(pids) == pids
    return pids


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda sign: sign.name)
def test_nothing_remains_after_a_signal(folder: Path, sign: signal.Signals, background: bool) -> None:
    owner = start_owner(folder, background=background)
    pids = tree(folder)
    owner.send_signal(sign)
    assert owner.wait(60) == 0
    assert (folder / "stopped").exists()
    assert running(pids) == set()
    assert (folder / "found").read_text() == "default"


def test_nothing_remains_after_an_exception(folder: Path) -> None:
    owner = start_owner(folder, "fail")
    assert owner.wait(60) == 3
    pids = {int(path.read_text()) for path in folder.glob("*.pid")}
    assert len(pids) == 4
    assert running(pids) == set()


def test_nothing_remains_after_a_kill_9(folder: Path) -> None:
    owner = start_owner(folder)
    pids = tree(folder)
    owner.kill()
    owner.wait()
    wait_for("the end of the tree", lambda: not running(pids))


@pytest.mark.parametrize(
    ("printed", "cause"),
    [
        ("no such luck", "no such luck"),
        ("Exception: the daemon died\\nINFO goodbye\\na\\nb\\nc", "Exception: the daemon died"),
    ],
)
def test_an_ended_program_is_reported_with_the_cause(tmp_path: Path, printed: str, cause: str) -> None:
    child = Child("greeter", [sys.executable, "-c", f"print('{printed}'); raise SystemExit(4)"], tmp_path / "log")
    wait_for("the end of the greeter", lambda: not child.family.members())
    with pytest.raises(LocalServerError, match=rf"greeter ended with code 4, see .*log: {cause}$"):
        child.check()
    child.stop()


def test_a_stranger_with_a_known_pid_is_left_alone() -> None:
    """A process is identified by pid and start time. The stranger has an ended process's pid and a later start time."""
    leader = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    ours = psutil.Process(leader.pid)
    running = [ours]
    family = Family(leader.pid, lambda: running)
    assert family.members() == {ours}
    leader.communicate(b"\n")
    stranger = psutil.Process(os.getpid())
    stranger._pid, stranger._ident = leader.pid, (leader.pid, -1.0)
    running[:] = [stranger]
    assert family.members() == set()

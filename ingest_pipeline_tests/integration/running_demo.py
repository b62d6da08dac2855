"""`ingest demo` as a child process."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from ingest_pipeline.local.process_family import Family, processes

ROOT = Path(__file__).parents[2]


class RunningDemo:
    """`ingest demo …` in a folder of its own. Remembers all its processes."""

    def __init__(self, folder: Path, *arguments: str, background: bool = False, **environ: str) -> None:
        command = [sys.executable, "-m", "ingest_pipeline.cli.main", "demo", "--port", "0", *arguments]
        if background:
            command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
        self.folder = folder
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "KAFKA_BOOTSTRAP_SERVERS": "nowhere:1", **environ},
                start_new_session=True,
            )
        self._family = Family(self._process.pid)
        self._seen: set[psutil.Process] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._family.members() | self._seen.intersection(processes()):
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def said(self) -> str:
        return self._output.read_text()

    def wait_for(self, pattern: str, seconds: float = 180.0) -> None:
        """Wait until the output matches."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.said):
            assert self._process.poll() is None, f"ended with {self._process.returncode}: {self.said}"
            assert time.monotonic() < deadline, f"{pattern!r} not said in {seconds:g} s: {self.said}"
            self.look()
            time.sleep(0.5)

    def look(self) -> set[psutil.Process]:
        members = self._family.members()
        self._seen |= members
        return members

    def send(self, sign: signal.Signals) -> None:
        self.look()
        self._process.send_signal(sign)

    def end(self, seconds: float = 240.0) -> int:
        """Wait for the end of the demo and return the exit code."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"did not end in {seconds:g} s: {self.said}"
            self.look()
            time.sleep(0.5)
        return self._process.returncode

    def left(self) -> set[psutil.Process]:
        """The demo's processes that still run."""
        assert self._seen
        return self._seen.intersection(processes())

    def pids(self, words: str) -> list[int]:
        """The demo's processes whose command line contains these words."""
        listed = subprocess.run(["ps", "-axww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
        own = {member.pid for member in self.look()}
        lines = (line.split(None, 1) for line in listed.stdout.splitlines())
        return [int(pid) for pid, args in lines if int(pid) in own and words in args]

"""What /proc says about processes: CPU and memory."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a process and of its ended children. None when the process is gone."""
    fields = _stat(pid)
    return None if fields is None else sum(map(int, fields[11:15])) / _TICKS


def rss_mib(pid: int) -> float:
    """Resident memory now. 0 when the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    except OSError:
        return 0.0


def session(leader: int) -> list[int]:
    """The processes of a session."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if (fields := _stat(pid)) is not None and int(fields[3]) == leader]


def _stat(pid: int) -> list[str] | None:
    """The fields from the state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None

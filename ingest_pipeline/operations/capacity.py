"""Whether PostgreSQL's sessions and the machine's memory suffice when all runs of all jobs are at work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ..core.stream import Stream
from ..core.streams import jobs_of
from ..settings import Settings
from .finding import Finding

SESSIONS_OF_RUN = 2
"""A run and its successor, at a hand-over."""
MIB_OF_RUN = 120
"""An estimate of the resident memory that a run does not share with other runs."""
_WAY_OUT = "give small streams one job= or lower PARALLELISM"


def capacity_findings(settings: Settings, streams: Sequence[Stream], session_limit: int) -> Iterator[Finding]:
    """Findings about sessions and memory.

    Args:
        session_limit: sessions that PostgreSQL gives the role.
    """
    runs = sum(settings.for_job(job.name).parallelism for job in jobs_of(streams))
    sessions = SESSIONS_OF_RUN * runs + settings.database_pool_min
    needed = f"{runs} run{'s' if runs > 1 else ''} and the code server need up to {sessions} sessions"
    if sessions > session_limit:
        advice = f"{_WAY_OUT}, or raise max_connections or the CONNECTION LIMIT"
        yield Finding(False, "PostgreSQL: sessions", f"{needed}, and the role may have {session_limit}: {advice}")
    else:
        yield Finding(True, "PostgreSQL: sessions", f"{needed}, the role may have {session_limit}")
    machine_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    if MIB_OF_RUN * runs > machine_mib:
        needed = f"{runs} runs need about {MIB_OF_RUN * runs:,} MiB"
        yield Finding(False, "memory", f"{needed}, and this machine has {machine_mib:,} MiB: {_WAY_OUT}")

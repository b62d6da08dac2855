"""How root starts a program that refuses to run as root, such as PostgreSQL."""

import functools
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .server_process import LocalServerError

ORDINARY_USER = "nobody"

# Tried in this order. Programs and files may lie below folders that only root may enter (a home directory, a
# temporary folder); opening those folders to everybody would outlast us, a capability ends with the program.
_CAPABILITIES = (None, "dac_read_search", "dac_override")


@functools.cache
def ordinary_user() -> tuple[int, int] | None:
    """(user id, group id) that must own what such a program writes; None when we are not root."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(ORDINARY_USER)
    return entry.pw_uid, entry.pw_gid


def as_ordinary_user(reachable: Sequence[Path]) -> list[str]:
    """What to put before a command line so that it runs as an ordinary user who can reach these paths.

    Empty when we are not root. Otherwise a ``setpriv`` call with the least privilege that reaches the paths:
    none at all where their folders are open, else the one Linux capability that lets a program pass them.
    Raises LocalServerError when no way is found.
    """
    user = ordinary_user()
    if user is None:
        return []
    if shutil.which("setpriv") is None:
        raise LocalServerError("PostgreSQL refuses to run as root and setpriv is not here: run as an ordinary user")
    for capability in _CAPABILITIES:
        prefix = _setpriv(*user, capability)
        if _reaches(prefix, reachable):
            return prefix
    paths = " or ".join(map(str, reachable))
    raise LocalServerError(
        f"PostgreSQL refuses to run as root, and user {ORDINARY_USER} cannot reach {paths}: "
        "run as an ordinary user, or from a folder open to others"
    )


def _setpriv(uid: int, gid: int, capability: str | None) -> list[str]:
    prefix = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    if capability is None:
        return prefix
    kept = f"-all,+{capability}"
    # no_setuid_fixup: without it access(2), which PostgreSQL asks about its own binary, ignores the
    # capability.
    prefix += ["--securebits=+no_setuid_fixup", f"--inh-caps={kept}"]
    return [*prefix, f"--ambient-caps={kept}", f"--bounding-set={kept}"]


def _reaches(prefix: Sequence[str], paths: Sequence[Path]) -> bool:
    script = 'for path; do test -x "$path" || exit 1; done'
    command = [*prefix, "sh", "-c", script, "sh", *map(str, paths)]
    return subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == 0

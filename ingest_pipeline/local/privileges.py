"""How root starts a program that refuses to run as root, for example PostgreSQL."""

import functools
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .server import LocalServerError

ORDINARY_USER = "nobody"

# Tried in this order. Programs and files may lie below folders that only root may enter, such as a home directory or a
# temporary folder. Opening such a folder to every user would outlast the program, a capability ends with it.
_CAPABILITIES = (None, "dac_read_search", "dac_override")


@functools.cache
def ordinary_user() -> tuple[int, int] | None:
    """(user id, group id) of the program's files. None when this process is not root."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(ORDINARY_USER)
    return entry.pw_uid, entry.pw_gid


def as_ordinary_user(paths: Sequence[Path]) -> list[str]:
    """The words before a command line to run as an ordinary user with access to the paths.

    Empty when this process is not root. Otherwise a ``setpriv`` call with the least privilege for the paths:
    none for open folders, else one Linux capability to pass closed folders.
    Raises LocalServerError when no privilege is enough.
    """
    user = ordinary_user()
    if user is None:
        return []
    if shutil.which("setpriv") is None:
        raise LocalServerError("PostgreSQL refuses to run as root and setpriv is not here: run as an ordinary user")
    for capability in _CAPABILITIES:
        prefix = _setpriv(*user, capability)
        if _reaches(prefix, paths):
            return prefix
    raise LocalServerError(
        f"PostgreSQL refuses to run as root, and user {ORDINARY_USER} cannot reach {' or '.join(map(str, paths))}: "
        "run as an ordinary user, or from a folder open to others"
    )


def _setpriv(uid: int, gid: int, capability: str | None) -> list[str]:
    prefix = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    if capability is None:
        return prefix
    kept = f"-all,+{capability}"
    # Without no_setuid_fixup access(2), by which PostgreSQL checks its own binary, ignores the capability.
    prefix += ["--securebits=+no_setuid_fixup", f"--inh-caps={kept}"]
    return [*prefix, f"--ambient-caps={kept}", f"--bounding-set={kept}"]


def _reaches(prefix: Sequence[str], paths: Sequence[Path]) -> bool:
    script = 'for path; do test -x "$path" || exit 1; done'
    command = [*prefix, "sh", "-c", script, "sh", *map(str, paths)]
    return subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == 0

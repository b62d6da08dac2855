"""What alerts say about the streams, as a function of their problems then and now: no server, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from ..core.stream import Stream
from .judgement import StreamStatus
from .levels import Level
from .problems import Kind, Problem, remedy

NAMED_STREAMS = 5
"""Most streams that a message names."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A problem of a stream since its beginning, and whether it was posted."""

    since: datetime
    posted: bool = False


Entries = Mapping[Kind, Entry]
"""A stream's problems."""


@dataclass(frozen=True, slots=True)
class Post:
    """A message of at most three lines: what, since when, what to do.

    Attributes:
        entries: stream → its problems once the message is posted.
    """

    text: str
    entries: Mapping[str, Entries]


def observe(entries: Entries, status: StreamStatus, now: datetime) -> dict[Kind, Entry]:
    """The stream's problems now.

    An operator's pause is no problem. While a server does not answer, earlier problems stay as they were.
    """
    observed = {}
    for problem in _unwell(status):
        since = min(problem.since or now, now)
        observed[problem.kind] = entries.get(problem.kind, Entry(since))
    if any(problem.level == Level.UNKNOWN for problem in status.problems):
        observed |= {kind: entry for kind, entry in entries.items() if entry.posted and kind not in observed}
    return observed


def posts(
    streams: Sequence[Stream],
    statuses: Mapping[str, StreamStatus],
    before: Mapping[str, Entries],
    observed: Mapping[str, Entries],
    *,
    now: datetime,
    after_seconds: float,
) -> list[Post]:
    """Streams with the same news share a message.

    Args:
        before, observed: stream → its problems at the last look, and now.
        after_seconds: a problem that ends earlier gives no message.
    """
    begun: defaultdict[tuple[str, int], list[tuple[Stream, Problem]]] = defaultdict(list)
    over: defaultdict[tuple[tuple[Kind, ...], str], list[tuple[Stream, Problem | None]]] = defaultdict(list)
    entries = {name: dict(problems) for name, problems in observed.items()}
    for stream in streams:
        status, then, problems = statuses[stream.name], before.get(stream.name, {}), entries[stream.name]
        ended = tuple(kind for kind, entry in then.items() if entry.posted and kind not in problems)
        due = [problem for problem in _unwell(status) if _is_due(problems[problem.kind], now, after_seconds)]
        if due:
            begun[due[0].message, len({problem.kind for problem in due})].append((stream, due[0]))
        if ended:
            rest = None if due else next(iter(_unwell(status)), None)
            over[ended, _better(status, rest)].append((stream, rest))
    result = []
    for (_, count), members in begun.items():
        after = {stream.name: _posted(entries[stream.name], now, after_seconds) for stream, _ in members}
        since = min(entries[stream.name][problem.kind].since for stream, problem in members)
        result.append(Post(_begun(members, count, since), after))
        entries |= {name: dict(problems) for name, problems in after.items()}
    for (ended, words), recovered in over.items():
        # The message names a problem that remains, so the end of this problem is news too.
        after = {
            stream.name: _posted(entries[stream.name], now, 0 if rest else after_seconds) for stream, rest in recovered
        }
        since = min(before[stream.name][kind].since for stream, _ in recovered for kind in ended)
        result.append(Post(_over(recovered, ended, words, since=since, now=now), after))
    return result


def _unwell(status: StreamStatus) -> list[Problem]:
    """The problems of which somebody has to hear, the gravest first."""
    return [problem for problem in status.problems if problem.kind != Kind.PAUSED and not _is_of_pause(problem, status)]


def _is_of_pause(problem: Problem, status: StreamStatus) -> bool:
    return status.paused and problem.kind == Kind.LATE


def _is_due(entry: Entry, now: datetime, after_seconds: float) -> bool:
    return not entry.posted and now - entry.since >= timedelta(seconds=after_seconds)


def _posted(entries: Entries, now: datetime, after_seconds: float) -> dict[Kind, Entry]:
    return {
        kind: replace(entry, posted=entry.posted or _is_due(entry, now, after_seconds))
        for kind, entry in entries.items()
    }


def _begun(members: Sequence[tuple[Stream, Problem]], count: int, since: datetime) -> str:
    stream, problem = members[0]
    streams, label = [member for member, _ in members], problem.level.label
    more = f" (and {count - 1} more)" if count > 1 else ""
    what = f"{_names(streams)} {_are(streams)} {label}: {_message(problem, label)}{more}"
    return f"{what}\nsince {_moment(since)}\n{remedy(problem, stream)}"


def _better(status: StreamStatus, rest: Problem | None) -> str:
    if status.level == Level.HEALTHY:
        return "well again"
    label = "paused" if status.paused else status.level.label
    return f"still {label}: {_message(rest, label)}" if rest else f"still {label}, and better"


def _over(
    members: Sequence[tuple[Stream, Problem | None]],
    ended: Sequence[Kind],
    words: str,
    *,
    since: datetime,
    now: datetime,
) -> str:
    streams = [stream for stream, _ in members]
    stream, rest = members[0]
    lines = [f"{_names(streams)} {_are(streams)} {words}"]
    lines.append(f"{', '.join(ended)}: {_moment(since)} to {_moment(now)}")
    return "\n".join([*lines, *([remedy(rest, stream)] if rest else [])])


def _message(problem: Problem, label: str) -> str:
    return _one_line(problem.message).removeprefix(f"{label}: ")


def _names(streams: Sequence[Stream]) -> str:
    names = ", ".join(stream.name for stream in streams[:NAMED_STREAMS])
    more = len(streams) - NAMED_STREAMS
    return f"{names} and {more:,} more" if more > 0 else names


def _are(streams: Sequence[Stream]) -> str:
    return "is" if len(streams) == 1 else "are"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _moment(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_plain(entries: Entries) -> dict[str, list[float | bool]]:
    """For JSON: kind → [since in Unix seconds, posted]."""
    return {kind.value: [entry.since.timestamp(), entry.posted] for kind, entry in entries.items()}


def from_plain(plain: Mapping[str, Sequence[float | bool]]) -> dict[Kind, Entry]:
    """Kinds of other code are left out."""
    known: Iterable[str] = [kind.value for kind in Kind]
    return {
        Kind(kind): Entry(datetime.fromtimestamp(since, UTC), bool(posted))
        for kind, (since, posted) in plain.items()
        if kind in known
    }

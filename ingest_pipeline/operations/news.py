"""What alerts say about the streams, as a function of their problems then and now: no server, no clock."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from ..core.stream import Stream
from ..core.timestamps import utc_text
from .judgement import StreamStatus
from .levels import Level
from .problems import Kind, Problem, remedy

NAMED_STREAMS = 5
"""Most streams that a message names."""
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_ENDED = " ended"
"""In JSON. Older code takes such a key for an unknown kind and leaves it out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A problem of a stream since its beginning, and whether it was posted."""

    since: datetime
    posted: bool = False


@dataclass(frozen=True, slots=True)
class StreamNews:
    """What was seen and posted of a stream.

    Attributes:
        problems: none of them began before the last posted end of its kind.
        ended: kind → when its problem was over, by the last message about an end.
    """

    problems: Mapping[Kind, Entry] = field(default_factory=dict)
    ended: Mapping[Kind, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Post:
    """A message of at most three lines: what, since when, what to do.

    Attributes:
        after: stream → its news once the message is posted.
    """

    text: str
    after: Mapping[str, StreamNews]


def observe(before: StreamNews, status: StreamStatus, now: datetime) -> StreamNews:
    """The stream's problems now.

    An operator's pause is no problem. While a server does not answer, earlier problems stay as they were.
    """
    problems = {}
    for problem in _unwell(status):
        since = max(min(problem.since or now, now), before.ended.get(problem.kind, _LONG_AGO))
        problems[problem.kind] = before.problems.get(problem.kind, Entry(since))
    if any(problem.level == Level.UNKNOWN for problem in status.problems):
        problems |= {kind: entry for kind, entry in before.problems.items() if entry.posted and kind not in problems}
    return replace(before, problems=problems)


def merged(first: StreamNews, second: StreamNews) -> StreamNews:
    """What two processes know together. A problem whose end one of them has posted is over."""
    kinds = {*first.ended, *second.ended}
    ended = {kind: max(news.ended.get(kind, _LONG_AGO) for news in (first, second)) for kind in kinds}
    problems: dict[Kind, Entry] = {}
    for kind, entry in (*first.problems.items(), *second.problems.items()):
        if entry.since >= ended.get(kind, _LONG_AGO):
            other = problems.get(kind, entry)
            problems[kind] = Entry(min(entry.since, other.since), entry.posted or other.posted)
    return StreamNews(problems, ended)


def posts(
    streams: Sequence[Stream],
    statuses: Mapping[str, StreamStatus],
    before: Mapping[str, StreamNews],
    observed: Mapping[str, StreamNews],
    *,
    now: datetime,
    after_seconds: float,
) -> list[Post]:
    """Streams with the same news share a message. A stream may be in two messages, first with a new problem.

    Args:
        before, observed: stream → its news at the last look, and now.
        after_seconds: a problem that ends earlier gives no message.
    """
    begun: defaultdict[tuple[str, int], list[tuple[Stream, Problem]]] = defaultdict(list)
    over: defaultdict[tuple[tuple[Kind, ...], str], list[tuple[Stream, Problem | None]]] = defaultdict(list)
    news = dict(observed)
    for stream in streams:
        status, then, problems = statuses[stream.name], before[stream.name].problems, observed[stream.name].problems
        ended = tuple(kind for kind, entry in then.items() if entry.posted and kind not in problems)
        causes = _causes(status)
        due = [problem for problem in causes if _is_due(problems[problem.kind], now, after_seconds)]
        if due:
            begun[due[0].message, len({problem.kind for problem in due})].append((stream, due[0]))
        if ended:
            rest = None if due else next(iter(causes), None)
            over[ended, _better(status, rest)].append((stream, rest))
            # The end stays to be posted until its own message is.
            news[stream.name] = replace(
                observed[stream.name], problems={**{kind: then[kind] for kind in ended}, **problems}
            )
    result = []
    for (_, count), members in begun.items():
        after = {stream.name: _posted(news[stream.name], now, after_seconds) for stream, _ in members}
        since = min(news[stream.name].problems[problem.kind].since for stream, problem in members)
        result.append(Post(_begun(members, count, since), after))
        news |= after
    for (ended, words), recovered in over.items():
        # The message names a problem that remains, so the end of this problem is news too.
        after = {
            stream.name: _ended(_posted(news[stream.name], now, 0 if rest else after_seconds), ended, now)
            for stream, rest in recovered
        }
        since = min(before[stream.name].problems[kind].since for stream, _ in recovered for kind in ended)
        result.append(Post(_over(recovered, ended, words, since=since, now=now), after))
    return result


def _unwell(status: StreamStatus) -> list[Problem]:
    """The problems of which somebody has to hear, the gravest first. A pause also delays records."""
    of_pause = (Kind.PAUSED, Kind.LATE) if status.paused else (Kind.PAUSED,)
    return [problem for problem in status.problems if problem.kind not in of_pause]


def _causes(status: StreamStatus) -> list[Problem]:
    """The unwell problems without a standstill whose reason is another one."""
    causes = [problem for problem in _unwell(status) if problem.kind != Kind.STUCK]
    return causes if any(problem.level == Level.STOPPED for problem in causes) else _unwell(status)


def _is_due(entry: Entry, now: datetime, after_seconds: float) -> bool:
    return not entry.posted and now - entry.since >= timedelta(seconds=after_seconds)


def _posted(news: StreamNews, now: datetime, after_seconds: float) -> StreamNews:
    problems = {
        kind: replace(entry, posted=entry.posted or _is_due(entry, now, after_seconds))
        for kind, entry in news.problems.items()
    }
    return replace(news, problems=problems)


def _ended(news: StreamNews, kinds: Sequence[Kind], now: datetime) -> StreamNews:
    problems = {kind: entry for kind, entry in news.problems.items() if kind not in kinds}
    return StreamNews(problems, {**news.ended, **dict.fromkeys(kinds, now)})


def _begun(members: Sequence[tuple[Stream, Problem]], count: int, since: datetime) -> str:
    stream, problem = members[0]
    streams, label = [member for member, _ in members], problem.level.label
    more = f" (and {count - 1} more)" if count > 1 else ""
    what = f"{_names(streams)} {_are(streams)} {label}: {_message(problem, label)}{more}"
    return f"{what}\nsince {utc_text(since)}\n{remedy(problem, stream)}"


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
    lines.append(f"{', '.join(ended)}: {utc_text(since)} to {utc_text(now)}")
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


def to_plain(news: StreamNews) -> dict[str, list[float | bool]]:
    """For JSON: kind → [since in Unix seconds, posted], and kind with _ENDED → [end in Unix seconds, True]."""
    problems = {kind.value: [entry.since.timestamp(), entry.posted] for kind, entry in news.problems.items()}
    return problems | {f"{kind}{_ENDED}": [time.timestamp(), True] for kind, time in news.ended.items()}


def from_plain(plain: Mapping[str, Sequence[float | bool]]) -> StreamNews:
    """Kinds of other code are left out."""
    problems, ended = {}, {}
    for kind in Kind:
        if kind in plain:
            since, posted = plain[kind]
            problems[kind] = Entry(datetime.fromtimestamp(since, UTC), bool(posted))
        if kind + _ENDED in plain:
            ended[kind] = datetime.fromtimestamp(plain[kind + _ENDED][0], UTC)
    return StreamNews(problems, ended)

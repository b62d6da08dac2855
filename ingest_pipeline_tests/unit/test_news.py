"""What alerts say, as a story of looks: problems at each look → messages."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.judgement import StreamStatus
from ingest_pipeline.operations.levels import Level
from ingest_pipeline.operations.news import Entry, StreamNews, from_plain, merged, observe, posts, to_plain
from ingest_pipeline.operations.problems import Kind, Problem, remedy
from ingest_pipeline_tests.samples import READING, Reading

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NO_KAFKA = Problem(Level.UNKNOWN, Kind.NO_ANSWER, "unknown: Kafka does not answer")
LOSS = Problem(Level.STOPPED, Kind.LOST, "partition 1: offsets 10 to 19 were deleted")
FAILED = Problem(Level.DEGRADED, Kind.FAILED_RUN, "the last run failed: disk full")
REFUSED = Problem(Level.DEGRADED, Kind.REFUSED_RECORDS, "2 open dead letters")
PAUSED = Problem(Level.STOPPED, Kind.PAUSED, "paused: index build (ann)")
LATE = Problem(Level.DEGRADED, Kind.LATE, "the table is 400 s behind", NOON - timedelta(seconds=400))
STUCK = replace(LATE, level=Level.STOPPED, kind=Kind.STUCK)


@dataclass
class Watch:
    """Looks at streams every ten seconds. At most `posts` messages of a look are posted."""

    streams: Sequence[Stream] = (READING,)
    posts: int = 99
    news: dict[str, StreamNews] = field(default_factory=dict)
    seconds: float = -10.0

    def look(self, *problems: Problem, times: int = 1) -> list[str]:
        """The messages of the next looks, at which the streams have these problems."""
        return [text for _ in range(times) for text in self._look(list(problems))]

    def _look(self, problems: list[Problem]) -> list[str]:
        self.seconds += 10.0
        now = NOON + timedelta(seconds=self.seconds)
        statuses = {stream.name: StreamStatus(stream.name, problems) for stream in self.streams}
        before = {stream.name: self.news.get(stream.name, StreamNews()) for stream in self.streams}
        observed = {name: observe(before[name], status, now) for name, status in statuses.items()}
        news = posts(self.streams, statuses, before, observed, now=now, after_seconds=60)
        awaited = {name for post in news for name in post.after}
        self.news = before | {name: seen for name, seen in observed.items() if name not in awaited}
        posted = news[: self.posts]
        for post in posted:
            self.news |= post.after
        return [post.text for post in posted]


def test_a_message_says_what_and_since_when_and_what_to_do() -> None:
    watch = Watch()
    assert watch.look(LOSS, times=6) == []
    assert watch.look(LOSS) == [
        "reading is stopped: partition 1: offsets 10 to 19 were deleted\n"
        "since 2026-01-01T12:00:00Z\n"
        "`ingest accept-loss reading` shows the range, and asks or says what it needs."
    ]
    assert watch.look(replace(LOSS, message="other figures"), times=10) == []
    assert watch.look() == ["reading is well again\nlost records: 2026-01-01T12:00:00Z to 2026-01-01T12:02:50Z"]
    assert watch.look(times=10) == []


def test_what_heals_in_time_gives_no_message() -> None:
    watch = Watch()
    for _ in range(3):
        assert watch.look(FAILED, times=6) == []
        assert watch.look() == []


def test_a_wait_counts_from_its_beginning() -> None:
    (text,) = Watch().look(STUCK)
    assert text.splitlines()[1] == "since 2026-01-01T11:53:20Z"


def test_a_new_problem_of_an_unwell_stream_is_posted_and_an_ended_one_too() -> None:
    watch = Watch()
    watch.look(REFUSED, times=7)
    assert watch.look(NO_KAFKA, REFUSED, times=7) == [
        "reading is unknown: Kafka does not answer\nsince 2026-01-01T12:01:10Z\n"
        "The sensor tries again by itself. `ingest check` tries every server, table and right."
    ]
    assert watch.look(REFUSED) == [
        "reading is still degraded: 2 open dead letters\nno answer: 2026-01-01T12:01:10Z to 2026-01-01T12:02:20Z\n"
        "Redrive or discard them, or run `ingest dead-letters acknowledge reading`."
    ]
    assert watch.look() == ["reading is well again\nrefused records: 2026-01-01T12:00:00Z to 2026-01-01T12:02:30Z"]


def test_a_message_has_the_level_of_its_own_problem() -> None:
    """A graver problem that is younger, or a pause, is not what the message is about."""
    watch = Watch()
    watch.look(REFUSED, times=6)
    (text,) = watch.look(LOSS, REFUSED)
    assert text.splitlines()[0] == "reading is degraded: 2 open dead letters"
    (text,) = watch.look(LOSS, REFUSED, times=6)
    assert text.splitlines()[0] == "reading is stopped: partition 1: offsets 10 to 19 were deleted"
    (text,) = Watch().look(PAUSED, REFUSED, times=7)
    assert text.splitlines()[0] == "reading is degraded: 2 open dead letters"


def test_the_end_of_a_problem_that_only_remained_is_posted_too() -> None:
    watch = Watch()
    watch.look(LOSS, times=7)
    (text,) = watch.look(REFUSED)  # younger than a minute
    assert text.splitlines()[0] == "reading is still degraded: 2 open dead letters"
    assert watch.look() == ["reading is well again\nrefused records: 2026-01-01T12:01:10Z to 2026-01-01T12:01:20Z"]


def test_several_problems_that_are_due_together_share_a_message() -> None:
    (text,) = [text for text in Watch().look(LOSS, FAILED, REFUSED, times=7) if text]
    assert text.splitlines()[0] == "reading is stopped: partition 1: offsets 10 to 19 were deleted (and 2 more)"
    assert len(text.splitlines()) == 3


def test_no_recovery_is_posted_while_a_server_does_not_answer() -> None:
    watch = Watch()
    watch.look(STUCK)
    assert watch.look(NO_KAFKA, times=3) == []
    assert watch.look(STUCK, times=3) == []
    assert watch.look() == ["reading is well again\nstuck: 2026-01-01T11:53:20Z to 2026-01-01T12:01:10Z"]


def test_a_pause_and_its_wait_are_no_news() -> None:
    watch = Watch()
    assert watch.look(PAUSED, LATE, times=10) == []
    watch.look(LOSS, PAUSED, times=7)
    (text,) = watch.look(PAUSED, LATE)
    assert text.startswith("reading is still paused, and better\nlost records: ")


def test_what_could_not_be_posted_is_posted_later() -> None:
    watch = Watch(posts=0)
    assert watch.look(FAILED, times=20) == []
    watch.posts = 99
    (text,) = watch.look(FAILED)
    assert text.splitlines()[1] == "since 2026-01-01T12:00:00Z"
    watch.posts = 0
    watch.look()
    watch.posts = 99
    assert len(watch.look()) == 1
    assert watch.look() == []


def test_fifty_streams_with_the_same_news_share_a_message() -> None:
    watch = Watch([Stream(f"reading_{number}", Reading) for number in range(50)])
    (text,) = watch.look(NO_KAFKA, times=7)
    names = "reading_0, reading_1, reading_2, reading_3, reading_4 and 45 more"
    assert text.splitlines()[0] == f"{names} are unknown: Kafka does not answer"
    assert [line.splitlines()[0] for line in watch.look()] == [f"{names} are well again"]


@pytest.mark.parametrize("level", [Level.DEGRADED, Level.UNKNOWN, Level.STOPPED])
@pytest.mark.parametrize("kind", list(Kind))
def test_every_problem_has_a_remedy_of_one_line(kind: Kind, level: Level) -> None:
    text = remedy(Problem(level, kind, "a message"), READING)
    assert text.endswith(".") and "\n" not in text


def test_the_end_is_posted_later_if_only_the_message_before_it_could_be() -> None:
    watch = Watch()
    watch.look(LOSS, times=7)
    watch.look(LOSS, REFUSED, times=5)
    watch.look(LOSS, REFUSED)
    watch.posts = 1
    (text,) = watch.look(REFUSED)
    assert text.startswith("reading is degraded: 2 open dead letters\n")
    watch.posts = 99
    assert watch.look(REFUSED) == [
        "reading is still degraded: 2 open dead letters\nlost records: 2026-01-01T12:00:00Z to 2026-01-01T12:02:20Z\n"
        "Redrive or discard them, or run `ingest dead-letters acknowledge reading`."
    ]
    assert watch.look(REFUSED, times=10) == []


def test_a_standstill_is_posted_unless_another_problem_is_its_reason() -> None:
    watch = Watch()
    watch.look(LOSS, times=7)
    assert watch.look(STUCK, LOSS, times=10) == []
    begun, over = watch.look(STUCK)
    assert begun.splitlines()[0] == "reading is stopped: the table is 400 s behind"
    assert over.splitlines()[0] == "reading is still stopped, and better"
    assert watch.look(STUCK, FAILED, times=7)[-1].startswith("reading is degraded: the last run failed: disk full")


AT = [NOON + timedelta(minutes=minute) for minute in range(5)]


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (StreamNews({Kind.LOST: Entry(AT[1], True)}), StreamNews(), StreamNews({Kind.LOST: Entry(AT[1], True)})),
        (
            StreamNews({Kind.LOST: Entry(AT[1], True)}),
            StreamNews({Kind.LOST: Entry(AT[2])}),
            StreamNews({Kind.LOST: Entry(AT[1], True)}),
        ),
        (
            StreamNews({Kind.LOST: Entry(AT[1], True)}),
            StreamNews({}, {Kind.LOST: AT[2]}),
            StreamNews({}, {Kind.LOST: AT[2]}),
        ),
        (
            StreamNews({Kind.LOST: Entry(AT[1], True)}),
            StreamNews({Kind.LOST: Entry(AT[3])}, {Kind.LOST: AT[2]}),
            StreamNews({Kind.LOST: Entry(AT[3])}, {Kind.LOST: AT[2]}),
        ),
        (
            StreamNews({Kind.LATE: Entry(AT[4])}, {Kind.LOST: AT[1]}),
            StreamNews({Kind.LOST: Entry(AT[1], True)}, {Kind.LATE: AT[2]}),
            StreamNews({Kind.LATE: Entry(AT[4]), Kind.LOST: Entry(AT[1], True)}, {Kind.LATE: AT[2], Kind.LOST: AT[1]}),
        ),
    ],
    ids=["one knows a problem", "one has posted it", "it is over", "it has come again", "different problems"],
)
def test_two_processes_know_together(one: StreamNews, other: StreamNews, together: StreamNews) -> None:
    assert merged(one, other) == merged(other, one) == together


def test_a_problem_that_comes_again_is_younger_than_its_last_end() -> None:
    """The beginning of a wait may be older than the message about its end."""
    watch = Watch()
    watch.look(STUCK)
    watch.look()
    watch.look(STUCK)
    news = watch.news[READING.name]
    assert news.problems[Kind.STUCK].since == news.ended[Kind.STUCK] == NOON + timedelta(seconds=10)


def test_news_survives_as_json_and_other_codes_kinds_are_left_out() -> None:
    news = StreamNews({Kind.LOST: Entry(NOON, True), Kind.LATE: Entry(NOON)}, {Kind.LATE: AT[1], Kind.STUCK: AT[2]})
    assert from_plain({**to_plain(news), "of newer code": [0.0, True]}) == news

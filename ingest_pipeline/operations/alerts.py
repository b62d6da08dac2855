"""Posts alerts to a webhook. Of several processes, a single process posts about a stream: the stream's row in the
ledger names the process.

While the ledger does not answer, this process goes on from its memory. After LEASE_SECONDS any other process posts too,
because it cannot know whether the first one lives. Once the ledger answers, every process adds its news to the row, and
the process that the row names posts the end.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from ..core.errors import EnvironmentFault, IngestError, NotPermitted, StopStream
from .news import StreamNews, from_plain, merged, observe, posts, to_plain
from .status import SensorReasons, statuses
from .stream_context import StreamContext

ANSWER_SECONDS = 5.0
LEASE_SECONDS = 45.0
"""Another process takes over a stream after this long without a look."""
_TRIES = 3


class WebhookRefused(EnvironmentFault):
    """The webhook took no message. The message does not hold its address."""


@dataclass(slots=True)
class Memory:
    """The memory of a posting process. Times are in Unix seconds.

    Attributes:
        own: the process posts about these streams. None: the ledger has not answered yet.
        news: stream → its news at the last look.
        is_newer: the ledger did not answer or does not exist yet, and may lack the news.
        silent_at: when the ledger last gave no answer.
        answered_at: when the ledger last answered, or the first look. None: before the first look.
    """

    own: list[str] | None = None
    news: dict[str, StreamNews] = field(default_factory=dict)
    is_newer: bool = False
    silent_at: float = 0.0
    answered_at: float | None = None

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """From `dump`, or empty."""
        plain: dict[str, Any] = json.loads(text) if text else {}
        news = {name: from_plain(problems) for name, problems in plain.pop("entries", {}).items()}
        return cls(news=news, **plain)

    def dump(self) -> str:
        plain = {name: getattr(self, name) for name in ("own", "is_newer", "silent_at", "answered_at")}
        return json.dumps({**plain, "entries": {name: to_plain(news) for name, news in self.news.items()}})


@dataclass(frozen=True, slots=True)
class Look:
    """What a look did.

    Attributes:
        refusal: why the ledger refuses this process. The messages come from the process's memory then.
    """

    messages: int
    refusal: str | None = None


class Alerts:
    """Looks at the streams and posts their news.

    Args:
        webhook: takes a POST of {"text": …}, like Slack's and Mattermost's webhooks. Never logged.
        name: the process, the same at every look.
        by_default: whether this process posts before the ledger has answered.
    """

    def __init__(
        self,
        contexts: Sequence[StreamContext],
        webhook: str,
        *,
        name: str,
        by_default: bool,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._contexts, self._clients = contexts, contexts[0].clients
        self._webhook, self._answer_seconds = webhook, answer_seconds
        self._name, self._by_default = name, by_default

    def look(self, memory: Memory, sensor_reasons: SensorReasons | None = None) -> Look:
        """Post the news. `memory` is up to date even after an exception.

        Raises:
            WebhookRefused: the rest is posted at a later look.
        """
        try:
            return self._look(memory, sensor_reasons)
        finally:  # a kept session would hide that no new session is free
            self._clients.release_idle()

    def _look(self, memory: Memory, sensor_reasons: SensorReasons | None) -> Look:
        by_name = {status.stream: status for status in statuses(self._contexts, False, sensor_reasons)}
        seconds = self._clients.clock.time()
        now = datetime.fromtimestamp(seconds, UTC)
        refusal = self._claim(memory, list(by_name), seconds)
        own = self._streams(memory, list(by_name), seconds)
        before = {name: memory.news.get(name, StreamNews()) for name in own}
        observed = {name: observe(before[name], by_name[name], now) for name in own}
        news = posts(
            [context.stream for context in self._contexts if context.stream.name in own],
            by_name,
            before,
            observed,
            now=now,
            after_seconds=self._clients.settings.alert_after_seconds,
        )
        awaited = {name for post in news for name in post.after}
        self._keep(memory, {name: seen for name, seen in observed.items() if name not in awaited})
        for post in news:
            self.post(post.text)
            self._keep(memory, post.after)
        return Look(len(news), refusal)

    def post(self, text: str) -> None:
        """Raises WebhookRefused after several refusals within half a minute, or one answer that did not come."""
        import requests  # takes 0.1 s, which runs save
        from requests.adapters import HTTPAdapter
        from urllib3.util.retry import Retry

        # A server that answers late may have taken the message, and the next look is soon enough.
        retry = Retry(
            _TRIES,
            read=False,
            backoff_factor=0.5,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=("POST",),
        )
        with requests.Session() as session:
            session.mount(self._webhook, HTTPAdapter(max_retries=retry))
            try:
                answer = session.post(self._webhook, json={"text": text}, timeout=self._answer_seconds)
                failure = None if answer.ok else f"it answers {answer.status_code}"
            except requests.RequestException as error:
                failure = type(error).__name__
        if failure is not None:
            raise WebhookRefused(f"ALERT_WEBHOOK_URL cannot be posted to: {failure}") from None

    def _claim(self, memory: Memory, streams: Sequence[str], now: float) -> str | None:
        """Learn the process's own streams and their news from the ledger. Returns the ledger's refusal."""
        if memory.answered_at is None:
            memory.answered_at = now
        rows = self._clients.alert_rows()
        try:
            # The other process could have looked for as long as the ledger has answered.
            takes_over = now - memory.silent_at >= LEASE_SECONDS
            claimed = rows.claim(streams, self._name, LEASE_SECONDS if takes_over else math.inf)
            together = {}
            if claimed is not None and memory.is_newer:
                together = rows.merge({name: to_plain(news) for name, news in memory.news.items()}, _merged)
        except IngestError as error:
            memory.is_newer, memory.silent_at = True, now
            if isinstance(error, NotPermitted):  # an answer: another process may have the right, and posts
                memory.answered_at = now
            return error.message if isinstance(error, StopStream) else None
        memory.is_newer, memory.answered_at = claimed is None, now
        if claimed is not None:
            memory.own = list(claimed)
            memory.news = {name: from_plain(together.get(name, news)) for name, news in claimed.items()}
        return None

    def _streams(self, memory: Memory, streams: list[str], now: float) -> list[str]:
        """The streams to post about."""
        if memory.answered_at is not None and now - memory.answered_at >= LEASE_SECONDS:
            return streams  # the process that has posted may be down as well
        if memory.own is None:
            return streams if self._by_default else []
        return memory.own

    def _keep(self, memory: Memory, news: Mapping[str, StreamNews]) -> None:
        """Remember the news, in the ledger too."""
        before = {name: to_plain(memory.news.get(name, StreamNews())) for name in news}
        after = {name: to_plain(seen) for name, seen in news.items()}
        memory.news |= news
        changed = [name for name in news if after[name] != before[name]]
        if not changed or memory.is_newer:
            return
        changes = {name: (before[name], after[name]) for name in changed}
        try:
            self._clients.alert_rows().store(changes, self._name)
        except IngestError:
            memory.is_newer, memory.silent_at = True, self._clients.clock.time()


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    return to_plain(merged(from_plain(first), from_plain(second)))

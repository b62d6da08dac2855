"""Posts alerts to a webhook. Of several processes, a single process posts about a stream: the stream's row in the
ledger names the process.

While the ledger does not answer, the last process to post goes on from its memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from ..core.errors import EnvironmentFault
from .news import Entries, from_plain, observe, posts, to_plain
from .status import SensorReasons, statuses
from .stream_context import StreamContext

ANSWER_SECONDS = 5.0
_TRIES = 3


class WebhookRefused(EnvironmentFault):
    """The webhook took no message. The message does not hold its address."""


@dataclass(slots=True)
class Memory:
    """The memory of a posting process.

    Attributes:
        own: the process posts about these streams. None: the ledger has not answered yet.
        entries: stream → its problems at the last look.
        is_newer: the ledger did not answer or does not exist yet, and lacks the entries.
        silent_at: when the ledger last gave no answer, in Unix seconds.
    """

    own: list[str] | None = None
    entries: dict[str, Entries] = field(default_factory=dict)
    is_newer: bool = False
    silent_at: float = 0.0

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """From `dump`, or empty."""
        plain: Any = json.loads(text) if text else {}
        entries = {name: from_plain(problems) for name, problems in plain.get("entries", {}).items()}
        return cls(plain.get("own"), dict(entries), plain.get("is_newer", False), plain.get("silent_at", 0.0))

    def dump(self) -> str:
        entries = {name: to_plain(problems) for name, problems in self.entries.items()}
        return json.dumps({"own": self.own, "entries": entries, "is_newer": self.is_newer, "silent_at": self.silent_at})


class Alerts:
    """Looks at the streams and posts their news.

    Args:
        webhook: takes a POST of {"text": …}, like Slack's and Mattermost's webhooks. Never logged.
        name: the process, the same at every look.
        by_default: whether this process posts before the ledger has answered.
        answer_seconds: time-out of a POST.
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

    def look(self, memory: Memory, sensor_reasons: SensorReasons | None = None) -> int:
        """Post the news. Returns the number of messages. `memory` is up to date even after an exception.

        Raises:
            WebhookRefused: the rest is posted at a later look.
            StopStream: the ledger refuses this process.
        """
        try:
            return self._look(memory, sensor_reasons)
        finally:  # a kept session would hide that no new session is free
            self._clients.release_idle()

    def _look(self, memory: Memory, sensor_reasons: SensorReasons | None) -> int:
        by_name = {status.stream: status for status in statuses(self._contexts, False, sensor_reasons)}
        now = datetime.fromtimestamp(self._clients.clock.time(), UTC)
        self._claim(memory, list(by_name))
        own = memory.own if memory.own is not None else list(by_name) if self._by_default else []
        before = {name: memory.entries.get(name, {}) for name in own}
        observed = {name: observe(before[name], by_name[name], now) for name in own}
        news = posts(
            [context.stream for context in self._contexts if context.stream.name in own],
            by_name,
            before,
            observed,
            now=now,
            after_seconds=self._clients.settings.alert_after_seconds,
        )
        awaited = {name for post in news for name in post.entries}
        self._keep(memory, {name: entries for name, entries in observed.items() if name not in awaited}, before)
        for post in news:
            self.post(post.text)
            self._keep(memory, post.entries, before)
        return len(news)

    def post(self, text: str) -> None:
        """Raises WebhookRefused after several failed tries within half a minute."""
        import requests  # takes 0.1 s, which runs save
        from requests.adapters import HTTPAdapter
        from urllib3.util.retry import Retry

        retry = Retry(_TRIES, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=("POST",))
        with requests.Session() as session:
            session.mount(self._webhook, HTTPAdapter(max_retries=retry))
            try:
                answer = session.post(self._webhook, json={"text": text}, timeout=self._answer_seconds)
                failure = None if answer.ok else f"it answers {answer.status_code}"
            except requests.RequestException as error:
                failure = type(error).__name__
        if failure is not None:
            raise WebhookRefused(f"ALERT_WEBHOOK_URL cannot be posted to: {failure}") from None

    def _claim(self, memory: Memory, streams: Sequence[str]) -> None:
        """Learn the process's own streams and their problems from the ledger.

        After an outage of the ledger only the process that has posted knows its posts. No other one takes over at once.
        """
        now = self._clients.clock.time()
        try:
            # A row that was renewed after the silence holds what a process has posted since.
            ages = self._clients.alert_rows().renewed_seconds(streams) if memory.is_newer else {}
            remembered = {
                name: entries
                for name, entries in memory.entries.items()
                if memory.is_newer and ages.get(name, math.inf) > now - memory.silent_at
            }
            claimed = self._clients.alert_rows().claim(streams, self._name, now - memory.silent_at)
        except EnvironmentFault:
            memory.silent_at = now
            return
        if claimed is None:
            return
        own = memory.own if memory.own is not None else list(memory.entries)
        memory.entries = {
            name: remembered[name] if name in own and name in remembered else from_plain(problems)
            for name, problems in claimed.items()
        }
        memory.own = list(claimed)

    def _keep(self, memory: Memory, entries: Mapping[str, Entries], before: Mapping[str, Entries]) -> None:
        """Remember the entries, in the ledger too."""
        memory.entries |= entries
        changed = {name: problems for name, problems in entries.items() if problems != before[name]}
        if memory.is_newer:
            changed = dict(memory.entries)
        if not changed:
            return
        try:
            plain = {name: to_plain(problems) for name, problems in changed.items()}
            memory.is_newer = not self._clients.alert_rows().store(plain, self._name)
        except EnvironmentFault:
            memory.is_newer, memory.silent_at = True, self._clients.clock.time()

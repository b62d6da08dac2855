"""Questions to PostgreSQL and Kafka about several streams. A silent server is asked once, and not for every stream."""

from collections.abc import Callable, Collection, Mapping, Sequence

from ..core.behind_group import behind_group
from ..core.errors import EnvironmentFault, IngestError, KafkaUnavailable
from ..core.ledger import LedgerSnapshot
from ..core.ledger_ports import Ledgers
from ..core.ports import Clock, Topic
from ..core.record import NextOffset, TopicIdentity
from ..core.start import Survey, compare_ends
from . import lateness
from .levels import timed_out
from .snapshot import Answer, StreamSnapshot, T
from .stream_context import StreamContext

KAFKA_SECONDS = 2.5
"""How long all streams together wait for a silent Kafka."""
LEAST_SECONDS = 0.5
"""The least time for a question to Kafka after slow answers."""
POSTGRES_SECONDS = 4.0
"""Time-outs of PostgreSQL that last longer in all end the questions to PostgreSQL."""


class Server:
    """Asks a server until it is silent. Its silence is the answer to every later question.

    Args:
        patience_seconds: failed questions that took longer in all prove the silence.
        is_outage: whether a single failure proves the silence.
    """

    def __init__(self, clock: Clock, patience_seconds: float, is_outage: Callable[[IngestError], bool]) -> None:
        self._clock, self._patience_seconds, self._is_outage = clock, patience_seconds, is_outage
        self._waited = 0.0
        self._silence: EnvironmentFault | None = None

    @property
    def is_silent(self) -> bool:
        return self._silence is not None

    def ask(self, question: Callable[[], T]) -> T | IngestError:
        if self._silence is not None:
            return self._silence
        began = self._clock.monotonic()
        try:
            return question()
        except EnvironmentFault as error:
            self._waited += self._clock.monotonic() - began
            if self._waited >= self._patience_seconds or self._is_outage(error):
                self._silence = error
            return error
        except IngestError as error:
            return error


class LedgerQuestions:
    """Questions to the ledgers of several streams, and to their tables."""

    def __init__(self, contexts: Sequence[StreamContext]) -> None:
        clients = contexts[0].clients
        self._names = [context.stream.name for context in contexts]
        self._ledgers = clients.ledgers([context.stream for context in contexts])
        self._server = Server(clients.clock, POSTGRES_SECONDS, lambda error: not timed_out(error))

    def of_all(self, question: Callable[[Ledgers], Mapping[str, T | IngestError]]) -> dict[str, T | IngestError]:
        """Stream → answer, by one question for all streams."""
        answers = self._server.ask(lambda: question(self._ledgers))
        if isinstance(answers, IngestError):
            return dict.fromkeys(self._names, answers)
        return dict(answers)

    def ask(self, question: Callable[[], T]) -> T | IngestError:
        return self._server.ask(question)


class KafkaQuestions:
    """Questions about the topics of several streams."""

    def __init__(self, contexts: Sequence[StreamContext]) -> None:
        self._contexts, self._clients = contexts, contexts[0].clients
        self._ends_at = self._clients.clock.monotonic() + KAFKA_SECONDS
        # A quick refusal is about one topic, and the other topics may be well.
        self._server = Server(self._clients.clock, KAFKA_SECONDS / 2, lambda error: False)
        self._group_server = Server(self._clients.clock, KAFKA_SECONDS / 2, lambda error: True)

    def surveys(self, ledgers: Mapping[str, LedgerSnapshot]) -> dict[str, Answer[Survey]]:
        """Stream → its topic compared with its positions. Topics are asked for together, and log bounds only where a
        position is not at the end."""
        contexts = [context for context in self._contexts if context.stream.name in ledgers]
        topics = sorted({context.stream.topic for context in contexts})
        identities = self._server.ask(lambda: self._clients.topics(self._seconds()).identities(topics))
        if isinstance(identities, IngestError):
            return {context.stream.name: self._for_all(identities) for context in contexts}
        numbers = {
            topic: range(identity.partitions)
            for topic, identity in identities.items()
            if isinstance(identity, TopicIdentity)
        }
        ends = self._server.ask(lambda: self._clients.topics(self._seconds()).end_offsets(numbers))
        surveys: dict[str, Answer[Survey]] = {}
        for context in contexts:
            identity = identities[context.stream.topic]
            if isinstance(identity, IngestError):
                surveys[context.stream.name] = identity
            elif isinstance(ends, IngestError):
                surveys[context.stream.name] = self._for_all(ends)
            else:
                ledger, topic_ends = ledgers[context.stream.name], ends[context.stream.topic]
                surveys[context.stream.name] = self._compared(context, identity, topic_ends, ledger)
        return surveys

    def old(
        self, context: StreamContext, snapshot: StreamSnapshot, ledger: LedgerSnapshot
    ) -> Answer[Mapping[int, Collection[int]]]:
        """See lateness.ask_kafka."""
        limits = (snapshot.max_delay_seconds, lateness.UNATTENDED_SECONDS)
        if not lateness.suspects(snapshot.partitions, min(limits), ledger.state):
            return {}
        return self._ask_about_one(
            lambda: lateness.ask_kafka(self._topic(context), snapshot.partitions, limits, ledger.state)
        )

    def behind_group(self, context: StreamContext, snapshot: StreamSnapshot) -> Answer[str | None]:
        """See core/behind_group.py. Asked while records wait for a run, because a run commits for the group. With many
        such streams, the later ones are not asked."""
        waits = any(row.lag and row.owner is None for row in snapshot.partitions)
        if not waits or self._clients.clock.monotonic() > self._ends_at:
            return None
        return self._group_server.ask(lambda: self._behind_group(context))

    def _behind_group(self, context: StreamContext) -> str | None:
        group = self._clients.group_id(context.stream)
        offsets, ledger_id = self._topic(context).group_offsets(group), context.ledger.ledger_id()
        commits = {p: offset.next_offset for p, offset in offsets.items() if offset.ledger_id == ledger_id}
        return behind_group(group, context.ledger.positions(), commits)

    def _compared(
        self, context: StreamContext, identity: TopicIdentity, ends: Mapping[int, NextOffset], ledger: LedgerSnapshot
    ) -> Survey | IngestError:
        return self._ask_about_one(
            lambda: compare_ends(
                self._topic(context), identity, dict(ends), positions=ledger.positions, noted=ledger.losses
            )
        )

    def _ask_about_one(self, question: Callable[[], T]) -> T | IngestError:
        """A silence about an earlier stream would name the topic of that stream."""
        if self._server.is_silent and len(self._contexts) > 1:
            return KafkaUnavailable("Kafka stopped answering before it was asked about this stream")
        return self._server.ask(question)

    def _topic(self, context: StreamContext) -> Topic:
        return self._clients.topic(context.stream, self._seconds())

    def _seconds(self) -> float:
        return max(LEAST_SECONDS, self._ends_at - self._clients.clock.monotonic())

    def _for_all(self, error: IngestError) -> IngestError:
        if len(self._contexts) == 1 or not isinstance(error, EnvironmentFault):
            return error
        return KafkaUnavailable(f"asked once for all streams: {error.message}")

"""Loads the lines of a file into a stream's table, by the stream's decoder, writer and dead letters."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

from ..core.errors import SettingsError
from ..core.formats import Csv, Json
from ..core.lane import Lane
from ..core.record import NO_TIMESTAMP_MS, Message, NextOffset
from ..core.recovery import Recovery
from ..core.stream import Stream
from .limits import batch_limits
from .stream_context import StreamContext


@dataclass(frozen=True, slots=True)
class FileLine:
    """A line in the place of a Kafka record. Its offset is the number of the line, from 1."""

    line: bytes
    file_partition: int
    number: int

    def __len__(self) -> int:
        return len(self.line)

    def value(self) -> bytes | None:
        return self.line

    def key(self) -> bytes | None:
        return None

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return None

    def partition(self) -> int:
        return self.file_partition

    def offset(self) -> int:
        return self.number

    def leader_epoch(self) -> int | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 0, NO_TIMESTAMP_MS


@dataclass(slots=True)
class Loaded:
    """Lines of a file by their outcome. `before`: lines that an earlier load has read."""

    rows: int = 0
    dead_letters: int = 0
    skipped: int = 0
    before: int = 0

    @property
    def lines(self) -> int:
        return self.rows + self.dead_letters + self.skipped + self.before


def check_loadable(stream: Stream) -> None:
    """Raises SettingsError for a stream with records that are no lines, or with rows that need an order."""
    if not isinstance(stream.format, Json | Csv):
        raise SettingsError(f"stream {stream.name}: a file has lines of JSON or CSV, and the format is {stream.format}")
    if stream.key:
        raise SettingsError(
            f"stream {stream.name} has a key: the newest record of a key counts, and the lines of a file have no order"
            " against the topic's records. Produce the lines to the topic"
        )


def load_lines(context: StreamContext, name: str, lines: Iterator[bytes], observe: Callable[[Loaded], None]) -> Loaded:
    """Store the lines behind the file's position. Empty lines are skipped.

    Each transaction stores rows, dead letters and the position of up to RECORDS_PER_COMMIT lines, so a second load of
    the file goes on behind the last one.

    Raises:
        SettingsError: the stream is paused, another load of the file runs, or another file of this name was loaded.
        EnvironmentFault (after RETRY_SECONDS), StopStream: the lines of earlier transactions stay stored.
    """
    stream, clients, settings, loaded = context.stream, context.clients, context.settings, Loaded()
    first_line = next(lines, None)
    if first_line is None:
        return loaded
    context.ledger.prepare()
    if context.ledger.state().paused:
        raise SettingsError(f"stream {stream.name} is paused. Resume it before the load")
    file = clients.file_position(stream, name)
    partition = file.partition
    with closing(clients.writing_connection(str(uuid.uuid4()))) as connection:
        session = clients.ledger_session(connection, stream)
        if session.own([partition], exact=True):
            raise SettingsError(f"stream {stream.name}: another load of {name} is running")
        decoder = clients.decoder(stream)
        lane = Lane(
            stream.name,
            stream.topic,
            session,
            decode=decoder.decode,
            batch_limits=batch_limits(settings, context.job_settings, by_hand=False),
            clock=clients.clock,
            rules=clients.record_rules(stream),
            decode_many=decoder.decode_many,
        )
        recovery = Recovery(
            connection,
            clients.clock,
            context.job_settings.retry_seconds,
            stop=lambda: None,
            shared=False,
            owning=lambda: [lane],
        )
        position = session.positions[partition].resume_at.next_offset
        messages: list[Message] = []
        number, size = 0, 0

        def commit() -> None:
            batch = lane.decoded(list(messages), {partition: NextOffset(number + 1)})
            if batch is None:
                return
            result = recovery.write(lane, batch)
            file.store()
            rows, letters = sum(result.rows.values()), sum(result.dead_letters.values())
            loaded.rows, loaded.dead_letters = loaded.rows + rows, loaded.dead_letters + letters
            loaded.skipped = number - loaded.before - loaded.rows - loaded.dead_letters
            messages.clear()
            observe(loaded)
            if result.requests is not None and result.requests.paused is not None:
                raise SettingsError(f"stream {stream.name} is paused: {result.requests.paused}. A new load goes on")

        for number, line in enumerate(chain([first_line], lines), 1):
            file.add(line)
            if number < position:
                loaded.before = number
                continue
            if value := line.rstrip(b"\r\n"):
                messages.append(FileLine(value, partition, number))
                size += len(value)
            if len(messages) >= settings.records_per_commit or size >= settings.batch_bytes:
                commit()
                size = 0
        file.check_length()
        commit()
    return loaded

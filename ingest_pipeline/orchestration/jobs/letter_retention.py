"""Deletes dead letters that were redriven or discarded more than SETTLED_LETTER_RETENTION_DAYS ago."""

from collections.abc import Sequence

import dagster as dg

from ...operations.clients import Clients
from ...operations.stream_context import StreamContext
from .operation import told_in_a_line


def purge_op(clients: Clients, contexts: Sequence[StreamContext]) -> dg.OpDefinition:
    """The op of `maintenance` that purges settled letters of these streams. Letters of other code locations' streams
    stay, even in the same ledger."""
    days = clients.settings.settled_letter_retention_days

    @dg.op(name="purge_settled_letters", description=f"Delete dead letters that were settled over {days} days ago.")
    def purge_settled_letters(context: dg.OpExecutionContext) -> None:
        from ...postgres.letter_retention import SettledLetters

        with told_in_a_line():
            for stream_context in contexts:
                if not stream_context.ledger.positions():
                    continue
                name = stream_context.stream.name
                settled = SettledLetters(clients.database(), stream_context.stream)
                context.log.info(f"purged {settled.purge(days):,} settled dead letters of {name}")
                if missing := settled.missing():
                    context.log.warning(
                        f"{missing:,} settled dead letters of {name} are gone though nothing purged them: the"
                        " ledger's counters of settled letters and its rows do not add up"
                    )

    return purge_settled_letters

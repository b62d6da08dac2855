"""Makes the partitions of tables ahead, and drops partitions older than `keep`."""

from collections.abc import Sequence

import dagster as dg

from ...operations.clients import Clients
from ...operations.stream_context import StreamContext
from .operation import told_in_a_line


def partitions_op(clients: Clients, contexts: Sequence[StreamContext]) -> dg.OpDefinition:
    """The op of `maintenance` for the tables with partition_by."""

    @dg.op(name="maintain_partitions", description="Make partitions ahead, and drop those that are older than keep.")
    def maintain_partitions(context: dg.OpExecutionContext) -> None:
        from ...postgres.partitions import maintain

        with told_in_a_line():
            for stream_context in contexts:
                if stream_context.stream.partition_by and stream_context.ledger.positions():
                    context.log.info(maintain(clients.database(), stream_context.stream))

    return maintain_partitions

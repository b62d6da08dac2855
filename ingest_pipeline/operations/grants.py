"""The rights of a role, as lines for psql and a shell."""

from collections.abc import Iterator, Sequence

from ..core.roles import Role
from ..core.stream import Stream
from ..settings import Settings


def grant_lines(
    settings: Settings, streams: Sequence[Stream], role: Role, *, name: str | None, principal: str | None
) -> Iterator[str]:
    """SQL, then commands of kafka-acls.sh. Asks no server.

    Args:
        name: PostgreSQL's role. Defaults to ingest_ and the role.
        principal: Kafka's principal. Defaults to KAFKA_SASL_USERNAME, or else the name.
    """
    from ..kafka import acls
    from ..kafka.client import bootstrap_servers
    from ..postgres import roles
    from ..postgres.sql import Schemas

    name = name or f"ingest_{role}"
    yield from roles.script(
        role,
        name,
        streams,
        Schemas(settings.database_schema, settings.ledger_schema),
        database=settings.database_name,
        accepts_losses=settings.accepts_losses,
    )
    commands = acls.script(
        role,
        principal or f"User:{settings.kafka.get('sasl.username', name)}",
        bootstrap_servers(settings.kafka),
        topics=[stream.topic for stream in streams],
        groups=[f"{settings.kafka_group_prefix}{stream.name}" for stream in streams],
        adopted_groups=[group for stream in settings.streams.values() if (group := stream.adopt_group)],
    )
    for number, command in enumerate(commands):
        if not number:
            yield ""
            yield "# In a shell, with the login of a Kafka administrator in --command-config:"
        yield command

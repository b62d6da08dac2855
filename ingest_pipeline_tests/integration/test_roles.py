"""Each role works with the printed rights, and a right taken away is one line of `ingest check`."""

import pytest

from ingest_pipeline.core.errors import NotPermitted
from ingest_pipeline.core.ledger import LetterFilter
from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.core.roles import Role
from ingest_pipeline.operations.check import _rights
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.finding import Finding
from ingest_pipeline.postgres import roles
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.letter_retention import SettledLetters
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.settings import load_settings
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import BAD, IDENTITY, READING, good
from ingest_pipeline_tests.servers.postgres_roles import PostgresRoles, name_of

pytestmark = pytest.mark.empty_database


@pytest.fixture
def made(database_url: str) -> PostgresRoles:
    return PostgresRoles(database_url, [READING])


def rights_of(url: str) -> Finding:
    clients = Clients(load_settings([READING.name], {"DATABASE_URL": url}))
    try:
        return _rights(clients, [READING])
    finally:
        clients.close()


def test_a_writer_drains_and_keeps_house(made: PostgresRoles) -> None:
    with Bench(made.url_of(Role.WRITER), own_rights=True) as bench:
        bench.begin()
        bench.write([good(), BAD])
        bench.ledger.pause("why", "ann")
        bench.ledger.resume()
        settled = SettledLetters(bench.database, READING)
        assert (settled.purge(30), settled.missing()) == (0, 0)
        with pytest.raises(NotPermitted):
            DeadLetters(bench.database, READING).discard(LetterFilter())
        assert bench.counters() == (2, 1, 1)
    finding = rights_of(made.url_of(Role.WRITER))
    assert finding.ok
    assert "`ingest grants --role operator`" in finding.message


def test_an_operator_redrives_and_discards_too(made: PostgresRoles) -> None:
    with Bench(made.url_of(Role.OPERATOR), own_rights=True) as bench:
        bench.begin()
        bench.write([good(), BAD])
        bench.redrive()
        assert DeadLetters(bench.database, READING).discard(LetterFilter()) == 1
    assert rights_of(made.url_of(Role.OPERATOR)) == Finding(
        True, "rights in PostgreSQL", "enough for every run and command"
    )


def test_a_reader_writes_nothing(made: PostgresRoles) -> None:
    with Bench(made.url_of(Role.OWNER), own_rights=True) as owner:
        owner.begin()
    with Bench(made.url_of(Role.READER), own_rights=True) as bench:
        assert bench.ledger.positions()[0].next_offset == 0
        with pytest.raises(NotPermitted):
            bench.ledger.pause("why", "ann")
        with pytest.raises(NotPermitted):
            bench.ledger.begin(IDENTITY, {1: NextOffset(0)}, first=False)


def test_each_right_taken_away_is_one_line(made: PostgresRoles) -> None:
    url, name = made.url_of(Role.WRITER), name_of(Role.WRITER)
    granted = roles.grants(Role.WRITER, [READING], Schemas(), "unused")
    rights = [(grant, privilege) for grant in granted if grant.kind != "DATABASE" for privilege in grant.privileges]
    assert len(rights) > 30
    for grant, privilege in rights:
        statement = grant.sql(name, [privilege])
        made.as_owner(statement.replace("GRANT", "REVOKE", 1).replace(" TO ", " FROM "))
        finding = rights_of(url)
        assert not finding.ok
        assert finding.message.splitlines()[1:] == [f"{statement};"]
        made.as_owner(statement)
    assert rights_of(url).ok

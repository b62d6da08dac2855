"""The printed GRANTs are enough for a role, and a missing right is named with the statement that grants it."""

from collections.abc import Iterator

import pytest

from ingest_pipeline.core.errors import NotPermitted
from ingest_pipeline.core.ledger import LetterFilter
from ingest_pipeline.core.loss import Acceptance, Loss, noted_loss
from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres import rights
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.letter_retention import SettledLetters
from ingest_pipeline_tests.integration.postgres_bench import Bench, PlainRole
from ingest_pipeline_tests.samples import BAD, IDENTITY, READING, good

pytestmark = pytest.mark.empty_database

NUMBERED = Stream("reading", READING.event, key_column="key", headers_column="headers", id_column="id")
"""The event table's identity column needs no right on its sequence."""
WRITER = ("USAGE ON SCHEMA public", "USAGE ON SCHEMA ingest", "SELECT ON ingest.schema_version")


@pytest.fixture(params=[READING, NUMBERED], ids=["plain", "numbered"])
def role(database_url: str, request: pytest.FixtureRequest) -> Iterator[PlainRole]:
    with Bench(database_url, request.param) as owner, PlainRole(owner) as made:
        yield made


def test_without_create_the_message_names_the_command(role: PlainRole) -> None:
    with pytest.raises(
        NotPermitted, match="run `ingest migrate` as a role that may create schemas and tables"
    ) as caught:
        role.bench.ledger.prepare()
    assert caught.value.sqlstate == "42501"
    assert "\n" not in caught.value.message
    assert "secret" not in caught.value.message
    with role.bench.database.connect("looking") as connection:
        assert not rights.may_create(connection, role.bench.database.schemas, [role.bench.stream])


def test_the_listed_rights_are_enough_for_a_stream(role: PlainRole) -> None:
    role.owner.ledger.prepare()
    with role.bench.database.connect("looking") as connection:
        missing = rights.missing_rights(connection, [role.bench.stream], role.bench.database.schemas)
    assert missing
    for statement in missing:
        role.owner.sql(statement)
    with role.bench.database.connect("looking") as connection:
        assert rights.missing_rights(connection, [role.bench.stream], role.bench.database.schemas) == []
    role.bench.begin()
    role.bench.write([good(), BAD, good()])
    role.bench.ledger.pause("why", "ann")
    role.bench.ledger.resume()
    role.bench.session.connection.heartbeat()
    assert role.bench.session.recover(None) is None
    assert role.owner.counters() == (3, 2, 1)
    commands(role.bench)
    assert role.owner.letters() != {}
    assert role.owner.sql("SELECT count(*) FROM ingest.position") == [0]


@pytest.mark.parametrize("migrated", [True, False])
def test_check_prints_all_grants_at_once_to_a_role_without_rights(role: PlainRole, migrated: bool) -> None:
    if migrated:
        role.owner.ledger.prepare()
    (grants,) = [finding.message for finding in role.bench.findings() if finding.what == "rights in PostgreSQL"]
    assert ("after `ingest migrate`" in grants) == (not migrated)
    role.owner.ledger.prepare()
    lines = grants.splitlines()[1:]
    assert len(lines) == len(set(lines)) > 10
    for line in lines:
        assert line.startswith("GRANT ")
        assert line.endswith(f' TO "{role.name}";')
        role.owner.sql(line)
    assert [finding for finding in role.bench.findings() if not finding.ok] == []
    role.bench.begin().write([good(), BAD])


def commands(bench: Bench) -> None:
    """The operations beside the drains: redrive, discard, allow, accept-loss and --dismiss, closing a partition."""
    bench.redrive()
    letters = DeadLetters(bench.database, bench.stream)
    assert letters.discard(LetterFilter()) == 1
    settled = SettledLetters(bench.database, bench.stream)
    assert (settled.purge(30), settled.missing()) == (0, 0)
    bench.ledger.allow_letters(1)
    loss = truncated(bench)
    bench.ledger.note_loss(loss)
    bench.ledger.forget_losses()
    bench.session.accept([Acceptance(loss, NextOffset(1))], IDENTITY, "ann")
    bench.session.accept([Acceptance(truncated(bench), None)], IDENTITY, "ann")


def truncated(bench: Bench) -> Loss:
    position = bench.session.positions[0]
    expected = position.resume_at.next_offset
    return noted_loss(
        cause="truncated", partition=0, incarnation=position.incarnation, expected=expected, low=0, high=1
    )


@pytest.mark.parametrize(
    "revoked",
    ["INSERT ON reading", "UPDATE ON ingest.position", "INSERT ON ingest.dead_letter", "USAGE ON SCHEMA ingest"],
)
def test_a_right_taken_away_stops_the_stream_once(role: PlainRole, revoked: str) -> None:
    role.owner.ledger.prepare()
    role.grant(*WRITER, "ALL ON ALL TABLES IN SCHEMA ingest", "SELECT, INSERT ON reading")
    role.bench.begin().write([good()])
    role.owner.sql(f"REVOKE {revoked} FROM {role.name}")
    with pytest.raises(NotPermitted):
        role.bench.write([good(), BAD])
    assert role.owner.counters() == (1, 1, 0)


def test_a_stream_begins_without_reading_the_table(role: PlainRole) -> None:
    """The role may only INSERT into an existing table, and SELECT the incarnations."""
    role.owner.ledger.prepare()
    role.grant(*WRITER, "ALL ON ALL TABLES IN SCHEMA ingest", "INSERT ON reading")
    with pytest.raises(NotPermitted, match="reading"):
        role.bench.ledger.begin(IDENTITY, {0: NextOffset(0)}, first=True)

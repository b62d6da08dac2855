"""The commands on a terminal that knows ASCII only, and the SQL of `ingest schema`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import psycopg
import pytest

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.local.broker import EmbeddedBroker
from ingest_pipeline.postgres.table_reads import ddl
from ingest_pipeline_tests.integration.postgres_bench import Bench

SCRIPT = Path(sys.executable).with_name("ingest")
ASCII = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "POSIX": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


COMMANDS: list[tuple[str, int, str]] = [
    ("tail messung", 0, "äußere Küche"),
    ("status", 2, "Küche wird gestrichen …"),
    ("check", 1, "messung"),
    ("schema messung", 0, "messung_küche"),
    ("dead-letters list messung", 0, "^[äöü→]"),
    ("dead-letters show messung 1", 0, "reason"),
    ("settings", 0, "BATCH_SIZE"),
    ("tail küche", 2, "k"),
    ("--help", 0, "Usage"),
    ("accept-loss --help", 0, "Usage"),
    ("nonsense", 2, "nonsense"),
]
"""Command, its exit code, and a part of its output."""
RUN_EACH = """
import os, sys
import confluent_kafka, psycopg, sqlalchemy
from ingest_pipeline.cli.main import main
children = []
for number, command in enumerate(sys.argv[1:]):
    if (child := os.fork()) == 0:
        output = os.open(str(number), os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ["ingest", *command.split()]
        main()
    children.append(child)
print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""
"""Forks a process for each command, because the imports take most of a command's time."""


class Messung(msgspec.Struct):
    """Eine Messung in der Küche, 20 °C."""

    event_time: datetime
    größe: float
    ort: Annotated[str, msgspec.Meta(pattern="^[äöü→]")]


STREAMS = [Stream("messung", Messung, table="messung_küche")]


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    """A row, a dead letter, and a pause with a reason. Each contains characters outside ASCII."""
    with Bench(database_url, STREAMS[0]) as made:
        made.begin()
        record = {"event_time": "2026-01-01T00:00:00Z", "größe": 1.5, "ort": "äußere Küche"}
        made.write([msgspec.json.encode(record), msgspec.json.encode(record | {"ort": "x"})])
        made.ledger.pause("Küche wird gestrichen …", "Jörg")
        yield made


def escaped(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def run(
    bench: Bench, broker: EmbeddedBroker, environ: dict[str, str], folder: Path, *command: str | Path
) -> subprocess.CompletedProcess[str]:
    given = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "INGEST_STREAMS": f"{__name__}:STREAMS",
        "DATABASE_URL": bench.url,
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        **environ,
    }
    return subprocess.run(command, cwd=folder, env=given, text=True, encoding="utf-8", capture_output=True)


@pytest.mark.parametrize("terminal", ASCII)
def test_each_command_shows_what_it_can(
    bench: Bench, embedded_broker: EmbeddedBroker, terminal: str, tmp_path: Path
) -> None:
    commands = [command for command, _, _ in COMMANDS]
    done = run(bench, embedded_broker, ASCII[terminal], tmp_path, sys.executable, "-c", RUN_EACH, *commands)
    assert done.returncode == 0, done.stderr
    codes = [int(code) for code in done.stdout.split()]
    assert dict(zip(commands, codes, strict=True)) == {command: code for command, code, _ in COMMANDS}
    for number, (command, _, part) in enumerate(COMMANDS):
        printed = (tmp_path / str(number)).read_text("utf-8")
        assert "UnicodeEncodeError" not in printed
        # Rich escapes what ASCII lacks. Click takes such a stream for misconfigured and writes UTF-8.
        assert part in printed or escaped(part) in printed, command


def test_a_reason_in_utf8_reaches_the_ledger(bench: Bench, embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    command = [SCRIPT, "pause", "messung", "--reason", "größer …"]
    done = run(bench, embedded_broker, ASCII["POSIX"], tmp_path, *command)
    assert (done.returncode, done.stderr) == (0, "")
    assert bench.sql("SELECT reason FROM ingest.stream_state") == ["größer …"]


class Odd(msgspec.Struct):
    r"""It's 50 % of C:\new, :x and "y"."""

    event_time: datetime
    share: float


CATALOG = """
    SELECT array(SELECT (attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
                         (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
                          WHERE adrelid = attrelid AND adnum = attnum))::text
                 FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 ORDER BY attnum),
           array(SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename = c.relname ORDER BY 1),
           array(SELECT (conname, contype)::text FROM pg_constraint WHERE conrelid = c.oid ORDER BY 1),
           obj_description(c.oid)
    FROM pg_class c WHERE c.relname = %s"""


@pytest.mark.parametrize("table", ["hum%:x", "hum%%s", 'a"b', "100 %(x)s", "küche", "x'y", "back\\slash"])
def test_the_printed_sql_makes_the_declared_table(database_url: str, table: str) -> None:
    """Send the text unchanged by the simple protocol, as psql does."""
    stream = Stream("odd", Odd, table=table, id_column="id")
    with Bench(database_url, stream) as bench:
        bench.begin()
        with psycopg.connect(database_url, autocommit=True) as connection:
            declared = connection.execute(CATALOG, [table]).fetchall()
            connection.execute(psycopg.sql.SQL("DROP TABLE {}").format(psycopg.sql.Identifier(table)))
            result = connection.pgconn.exec_(ddl(stream, "public").encode())
            assert result.status == psycopg.pq.ExecStatus.COMMAND_OK, result.error_message
            assert connection.execute(CATALOG, [table]).fetchall() == declared
            assert declared[0][3] == r"""It's 50 % of C:\new, :x and "y"."""

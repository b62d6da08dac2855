"""`ingest load` stores the lines of files as records are stored, and each line once."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backports import zstd
from click.testing import CliRunner

from ingest_pipeline import Avro, Csv, Route, Stream
from ingest_pipeline.cli import main
from ingest_pipeline.core.roles import Role
from ingest_pipeline.streams import Temperature
from ingest_pipeline_tests.declared import declare
from ingest_pipeline_tests.orchestration.bench import Bench, query
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import temperatures
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url

Make = Callable[..., Bench]
TEMPERATURE = Stream("temperature", Temperature)
LINE = b'{"device_id": "d%d", "temperature": 21.5, "timestamp": "2026-01-01T00:00:00Z"}'
ROWS = "select kafka_incarnation, kafka_partition, kafka_offset, device_id from temperature order by 2 desc, 3"


class Reading(msgspec.Struct):
    meter: str
    level: float | None


def lines(count: int, first: int = 0) -> bytes:
    return b"".join(LINE % number + b"\n" for number in range(first, first + count))


class Loader:
    """`ingest load` of a stream into a database, without Kafka."""

    def __init__(
        self, url: str, folder: Path, stream: Stream = TEMPERATURE, role: Role = Role.WRITER, **environ: str
    ) -> None:
        self.url, self.folder, self.stream = url, folder, stream
        servers = {"DATABASE_URL": pipeline_url(url, [stream], role), "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
        self.environ = {**servers, **environ}

    def __call__(self, *words: str, code: int = 0, stdin: bytes | None = None, **files: bytes) -> str:
        for name, content in files.items():
            (self.folder / name.replace("_", ".", 1)).write_bytes(content)
        with pytest.MonkeyPatch.context() as patch:
            declare(patch, [self.stream])
            patch.chdir(self.folder)
            result = CliRunner().invoke(main.main, list(words), env=self.environ, input=stdin)
        assert result.exit_code == code, result.output
        return result.output

    def load(self, *words: str, **options: Any) -> str:
        return self("load", self.stream.name, *words, **options).splitlines()[-1]

    def query(self, statement: str) -> list[Any]:
        return query(self.url, statement)


@pytest.fixture
def loader(database_url: str, tmp_path: Path) -> Loader:
    return Loader(database_url, tmp_path)


def test_a_second_load_stores_nothing_twice(loader: Loader) -> None:
    assert loader.load("a.json", a_json=lines(3)) == "a.json: 3 stored, 0 dead letters, 0 skipped, 0 loaded before"
    assert loader.load("a.json") == "a.json: 0 stored, 0 dead letters, 0 skipped, 3 loaded before"
    assert loader.query(ROWS) == [(1, -1, 1, "d0"), (1, -1, 2, "d1"), (1, -1, 3, "d2")]


def test_a_file_that_has_grown_goes_on(loader: Loader) -> None:
    loader.load("a.json", a_json=lines(2))
    assert loader.load("a.json", a_json=lines(5)).startswith("a.json: 3 stored, 0 dead letters, 0 skipped, 2 loaded")
    assert len(loader.query(ROWS)) == 5


def test_files_have_positions_of_their_own(loader: Loader) -> None:
    loader.load("a.json", "b.json", a_json=lines(2), b_json=lines(1, first=7))
    assert loader.query(ROWS) == [(1, -1, 1, "d0"), (1, -1, 2, "d1"), (1, -2, 1, "d7")]
    positions = "select topic, kafka_partition, next_offset from ingest.position order by 1"
    assert loader.query(positions) == [("a.json", -1, 3), ("b.json", -2, 2)]


def test_another_file_of_the_same_name_is_refused(loader: Loader) -> None:
    loader.load("a.json", a_json=lines(2))
    printed = loader("load", "temperature", "a.json", a_json=lines(2, first=5), code=1)
    assert "a file a.json with other lines was loaded before: give this one another name (--name)" in printed
    assert loader.load("a.json", "--name", "other").startswith("other: 2 stored")


@pytest.mark.parametrize("other", [lines(1) + lines(2, first=7), lines(2), lines(2) + LINE % 2])
def test_a_file_with_the_same_name_and_first_line_is_another_file(loader: Loader, other: bytes) -> None:
    loader.load("a.json", a_json=lines(3))
    printed = loader("load", "temperature", "a.json", a_json=other, code=1)
    assert "a file a.json with other lines was loaded before" in printed
    assert len(loader.query(ROWS)) == 3


def test_a_last_line_without_a_line_break_may_grow(loader: Loader) -> None:
    loader.load("a.json", a_json=lines(3)[:-1])
    assert loader.load("a.json", a_json=lines(5).replace(b"\n", b"\r\n")).startswith("a.json: 2 stored")
    assert len(loader.query(ROWS)) == 5


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        zstd.compress,
        lambda text: gzip.compress(text[:20]) + gzip.compress(text[20:]),
        lambda text: zstd.compress(text[:20]) + zstd.compress(text[20:]),
    ],
    ids=["gzip", "zstd", "gzip of two parts", "zstd of two parts"],
)
def test_packed_files_are_unpacked(loader: Loader, pack: Callable[[bytes], bytes]) -> None:
    assert loader.load("a.json", a_json=pack(lines(3))).startswith("a.json: 3 stored")
    assert loader.load("-", "--name", "b", stdin=pack(lines(2))).startswith("b: 2 stored")


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_a_cut_file_keeps_what_was_committed(loader: Loader, pack: Callable[[bytes], bytes]) -> None:
    loader.environ["RECORDS_PER_COMMIT"] = loader.environ["BATCH_SIZE"] = "100"
    text = lines(1) + b"".join(
        json.dumps({"device_id": os.urandom(40).hex(), "temperature": 1, "timestamp": "2026-01-01T00:00:00Z"}).encode()
        + b"\n"
        for _ in range(5000)
    )
    whole = pack(text)
    printed = loader("load", "temperature", "a.json", a_json=whole[: len(whole) // 2], code=1)
    assert "it is cut or damaged" in printed
    (stored,) = loader.query("select count(*) from temperature")
    assert 0 < stored < 5001
    assert loader.load("a.json", a_json=whole).endswith(f"{stored:,} loaded before")
    assert loader.query("select count(*) from temperature") == [5001]


def test_bad_lines_are_dead_letters_that_a_redrive_stores(database_url: str, tmp_path: Path) -> None:
    loader = Loader(database_url, tmp_path, role=Role.OPERATOR)
    text = lines(1) + b'{"device_id": 7, "temperature": 1, "timestamp": "2026-01-01T00:00:00Z"}\n\n' + lines(1, first=2)
    assert loader.load("a.json", a_json=text) == "a.json: 2 stored, 1 dead letters, 1 skipped, 0 loaded before"
    letters = "select kafka_partition, kafka_offset, status, reason from ingest.dead_letter"
    assert loader.query(letters) == [(-1, 2, "open", "Expected `str`, got `int` - at `$.device_id`")]
    loader.query(
        "update ingest.dead_letter set value = convert_to(replace(convert_from(value, 'UTF8'), '7', '\"7\"'), 'UTF8')"
    )
    assert "1 stored" in loader("dead-letters", "redrive", "temperature")
    assert loader.query(ROWS)[1] == (1, -1, 2, "7")


def test_the_limit_of_dead_letters_holds(loader: Loader) -> None:
    printed = loader("load", "temperature", "a.json", a_json=b"no JSON\n" * 101, code=1)
    assert "101 records in a row were refused" in printed
    assert loader.query("select count(*) from ingest.dead_letter") == [0]
    loader("dead-letters", "allow", "temperature", "--count", "101")
    assert loader.load("a.json").startswith("a.json: 0 stored, 101 dead letters")


def test_csv_lines_are_read_by_a_csv_stream(database_url: str, tmp_path: Path) -> None:
    csv = Loader(database_url, tmp_path, Stream("reading", Reading, format=Csv(";")))
    assert csv.load("a.csv", a_csv=b'm1;1.5\r\n"m;2";\n').startswith("a.csv: 2 stored")
    assert csv.query("select meter, level from reading order by meter") == [("m1", 1.5), ("m;2", None)]


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["no.json"], "no.json cannot be read: No such file or directory"),
        (["-"], "every file needs a name of its own"),
        (["a.json", "b/a.json"], "every file needs a name of its own"),
    ],
)
def test_what_cannot_be_loaded_is_refused(loader: Loader, words: list[str], printed: str) -> None:
    output = CliRunner().invoke(main.main, ["load", "temperature", *words], env=loader.environ).output
    assert printed in output


def test_only_lines_are_loaded(database_url: str, tmp_path: Path) -> None:
    avro = Loader(database_url, tmp_path, Stream("reading", Reading, format=Avro()))
    assert "a file has lines of JSON or CSV, and the format is Avro()" in avro(
        "load", "reading", "a.json", a_json=b"x", code=1
    )


def test_a_keyed_stream_is_refused(database_url: str, tmp_path: Path) -> None:
    keyed = Loader(database_url, tmp_path, Stream("temperature", Temperature, key=("device_id",), on_conflict="update"))
    assert "temperature has a key" in keyed("load", "temperature", "a.json", a_json=lines(1), code=1)


def test_a_paused_stream_is_not_loaded(loader: Loader) -> None:
    loader("pause", "temperature")
    assert "is paused" in loader("load", "temperature", "a.json", a_json=lines(1), code=1)


def test_an_empty_file_is_loaded(loader: Loader) -> None:
    assert loader.load("a.json", a_json=b"") == "a.json: 0 stored, 0 dead letters, 0 skipped, 0 loaded before"


@pytest.mark.slow
def test_a_killed_load_goes_on(loader: Loader, tmp_path: Path) -> None:
    count = 200_000
    (tmp_path / "a.json").write_bytes(lines(count))
    script = Path(sys.executable).with_name("ingest")
    environ = {**os.environ, **loader.environ, "RECORDS_PER_COMMIT": "1000"}
    for _ in range(3):
        child = subprocess.Popen([script, "load", "temperature", "a.json"], cwd=tmp_path, env=environ)
        deadline = time.monotonic() + 60
        before = loader.query("select count(*) from temperature")[0]
        while loader.query("select count(*) from temperature")[0] <= before:
            assert time.monotonic() < deadline
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
    loader.load("a.json")
    assert loader.query("select count(*), count(distinct device_id) from temperature") == [(count, count)]


@pytest.mark.kafka
def test_kafkas_positions_and_the_status_know_nothing_of_files(make_bench: Make, tmp_path: Path) -> None:
    bench = make_bench()
    file = tmp_path / "a.json"
    file.write_bytes(lines(3) + b"no JSON\n")
    assert "3 stored, 1 dead letters" in ingest(bench, "load", "temperature", str(file))
    bench.produce(temperatures(4))
    assert bench.by_sensor().success
    assert bench.rows() == 7
    assert sorted(bench.positions()) == [-1, 0, 1]
    document = json.loads(ingest(bench, "status", "temperature", "--json", code=1))
    (stream,) = document
    assert [row["partition"] for row in stream["partitions"]] == [0, 1]
    assert {account.partition for account in bench.context.ledger.accounting()} == {0, 1}
    assert bench.context.ledger.row_count() == 7
    assert "0 stored, 0 dead letters, 0 skipped, 4 loaded before" in ingest(bench, "load", "temperature", str(file))


class Event(msgspec.Struct):
    kind: str
    number: int


class Click(Event):
    url: str


EVENTS = b"""{"kind": "click", "number": 1, "url": "u"}
{"kind": "view", "number": 2}
{"kind": "scroll", "number": 3}
{"kind": "click", "number": 4}
{"kind": "view", "number": 5}
"""


def test_a_route_divides_a_file(database_url: str, tmp_path: Path) -> None:
    tables: dict[str, Any] = {"click": ("clicks", Click), "view": "views"}
    stream = Stream("event", Event, route=Route("kind", tables))
    loader = Loader(database_url, tmp_path, stream, RECORDS_PER_COMMIT="2")
    assert loader.load("a.json", a_json=EVENTS) == "a.json: 3 stored, 2 dead letters, 0 skipped, 0 loaded before"
    assert loader.load("a.json") == "a.json: 0 stored, 0 dead letters, 0 skipped, 5 loaded before"
    rows = "select kafka_partition, kafka_offset, number from {} order by 2"
    assert loader.query(rows.format("clicks")) == [(-1, 1, 1)]
    assert loader.query(rows.format("views")) == [(-1, 2, 2), (-1, 5, 5)]
    wider = Stream("event", Event, route=Route("kind", {**tables, "scroll": "views"}))
    operator = Loader(database_url, tmp_path, wider, Role.OPERATOR)
    redriven = operator("dead-letters", "redrive", "event", "--reason", "no table")
    assert "1 stored" in redriven, redriven
    assert loader.query(rows.format("views"))[1] == (-1, 3, 3)


def test_two_streams_load_files_into_one_table(database_url: str, tmp_path: Path) -> None:
    for site in ("north", "south"):
        stream = Stream(site, Event, table="sites", topic_column="topic")
        loader = Loader(database_url, tmp_path, stream)
        for _ in range(2):
            loader.load("a.json", a_json=EVENTS)
    rows = "select topic, kafka_partition, count(*) from sites group by 1, 2 order by 1"
    assert loader.query(rows) == [("north", -1, 5), ("south", -1, 5)]

"""Puts a canary word into all secrets and payloads, and searches everything that a run leaves behind for it."""

import base64
import json
import os
import secrets
import sqlite3
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal, Self
from uuid import UUID

from msgspec import Struct

from ingest_pipeline.core.roles import Role
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import query
from ingest_pipeline_tests.orchestration.records import Record
from ingest_pipeline_tests.servers.postgres_roles import give_to_owner, name_of

CONTEXT_BYTES = 120


class Canary:
    """A word, new for each world. `word("place")` adds the place, so that a failure names the leaking source."""

    def __init__(self) -> None:
        self._word = f"cnry{secrets.token_hex(8)}"
        as_bytes = self._word.encode()
        coded = [base64.b64encode(b"x" * shift + as_bytes)[4 if shift else 0 : -4] for shift in range(3)]
        self._needles = [as_bytes, as_bytes.hex().encode(), *coded]

    def word(self, place: str) -> str:
        return f"{self._word}-{place}"

    def in_bytes(self, text: bytes) -> list[str]:
        """The text around each occurrence of the word, plain, in hex or in base64."""
        excerpts = []
        for needle in self._needles:
            start = text.find(needle)
            while start >= 0:
                excerpts.append(repr(text[max(0, start - CONTEXT_BYTES) : start + CONTEXT_BYTES]))
                start = text.find(needle, start + len(needle))
        return excerpts

    def in_folder(self, folder: Path) -> list[str]:
        """Search the bytes of every file. SQLite pages may split a word, so search the values of SQLite files too."""
        excerpts = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            texts = [path.read_bytes()]
            if texts[0].startswith(b"SQLite format 3"):
                texts.append("\n".join(dump(path)).encode())
            excerpts += [f"{path.relative_to(folder)}: {around}" for text in texts for around in self.in_bytes(text)]
        return excerpts


def dump(path: Path) -> Iterator[str]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        yield from connection.iterdump()


class ProcessList:
    """The command lines that `ps` shows while the block runs."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.lines: set[bytes] = set()
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.5):
            shown = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, check=True).stdout
            self.lines.update(shown.splitlines())
            self.looks += 1


@contextmanager
def secret_environ(canary: Canary, url: str, folder: Path) -> Iterator[dict[str, str]]:
    """The URL of a new database role whose password is the word, and secrets that are not used. `folder` keeps one."""
    role, password = f"canary_{secrets.token_hex(4)}", canary.word("database-password")
    give_to_owner(url, STREAMS)
    query(url, f"create role {role} login password '{password}' in role {name_of(Role.OWNER)}")
    place = url.rpartition("@")[2]
    login = folder / "sasl-password"
    login.write_text(canary.word("sasl-password") + "\n")
    yield {
        "DATABASE_URL": f"postgresql://{role}:{password}@{place}",
        "KAFKA_SASL_USERNAME": "reader",
        "KAFKA_SASL_PASSWORD_FILE": str(login),
        "SCHEMA_REGISTRY_BASIC_AUTH": f"reader:{canary.word('registry-password')}",
        "KAFKA_SSL_KEY_PASSWORD": canary.word("ssl-key-password"),
    }
    query(url, f"reassign owned by {role} to current_user; drop owned by {role}; drop role {role}")


CONSTRAINTS = """
    alter table price add constraint not_negative check (price >= 0),
        add constraint numbered check (price <> 8 or symbol::int > 0);
    create unique index only_once on price (symbol) where price = 7;
    create index short on price (symbol);
    create function quote_it() returns trigger language plpgsql as $$
        begin raise exception 'no such symbol: %', new.symbol; end $$;
    create trigger refuse before insert on price for each row when (new.price = 9) execute function quote_it()"""
"""Constraints and triggers that refuse prices. Together they make PostgreSQL quote a row in MESSAGE, DETAIL and
CONTEXT."""

REFUSED_BY_DATABASE = {
    "check": -1.0,
    "cast": 8.0,
    "trigger": 9.0,
    "too-long": 6.0,
    "twice": 7.0,
}


def price(symbol: str, price: object = 1.5, timestamp: str = "2026-01-01T00:00:00Z") -> bytes:
    return json.dumps({"symbol": symbol, "price": price, "timestamp": timestamp}).encode()


def good_prices(canary: Canary) -> list[Record]:
    values = [price(canary.word(f"good-{number}")) for number in range(3)]
    return list(dressed(canary, [*values, price(canary.word("twice"), REFUSED_BY_DATABASE["twice"])]))


def refused_prices(canary: Canary) -> list[Record]:
    """Values that the decoder refuses, then values that PostgreSQL refuses."""
    word = canary.word
    by_decoder = [
        word("no-json").encode(),
        b'{"symbol": "' + word("cut").encode(),
        b'{"symbol": "' + word("no-utf8").encode() + b'\xff", "price": 1}',
        json.dumps({word("name"): 1}).encode(),
        json.dumps([word("list")]).encode(),
        price(word("type"), word("type")),
        price(word("timestamp"), 1, word("timestamp")),
        price(word("year"), 1, "9999-12-31T23:59:59-10:00"),
        price(word("nul") + "\0"),
    ]
    by_database = []
    for kind, amount in REFUSED_BY_DATABASE.items():
        symbol = word(kind) + (secrets.token_hex(9000) if kind == "too-long" else "")
        by_database.append(price(symbol, amount))
    return list(dressed(canary, [*by_decoder, *by_database]))


def dressed(canary: Canary, values: Iterable[bytes]) -> Iterator[Record]:
    """Records with the word in key and headers too."""
    for value in values:
        headers = ((canary.word("header-name"), canary.word("header").encode()), ("empty", None))
        yield Record(value, 0, canary.word("key").encode(), headers)


class Ticket(Struct, forbid_unknown_fields=True):
    """A ticket. Its types produce errors that could quote the value."""

    holder: str
    event_time: datetime
    fare: Decimal
    number: UUID
    day: date
    picture: bytes
    zones: list[Literal["inner", "outer"]]
    extras: dict[str, float]

    def __post_init__(self) -> None:
        if self.fare < 0:
            raise ValueError(f"{self.holder} owes {self.fare}")


def refused_tickets(canary: Canary) -> list[Record]:
    """Values of tickets: a valid one first."""
    good = {
        "holder": canary.word("good-ticket"),
        "event_time": "2026-01-01T00:00:00Z",
        "fare": "1.20",
        "number": "12345678-1234-5678-1234-567812345678",
        "day": "2026-01-01",
        "picture": "AAH/",
        "zones": ["inner"],
        "extras": {canary.word("extra"): 1.5},
    }
    word = canary.word("ticket")
    bad = [{name: word} for name in good if name != "holder"]
    bad += [{"zones": [word]}, {"zones": [f"'{word}\""]}, {"extras": {word: word}}, {word: 1}, {f"`{word}'": 1}]
    bad += [{"fare": "-1"}, {"fare": "NaN"}, {"extras": {word + "\0": 1}}]
    return list(dressed(canary, [json.dumps({**good, **change}).encode() for change in [{}, *bad]]))


def bare_environ() -> dict[str, str]:
    """The environment variables that a child process needs, and no others."""
    return {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR", "PYTHONPATH") if name in os.environ}

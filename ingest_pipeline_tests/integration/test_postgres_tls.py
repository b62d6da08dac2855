"""A real PostgreSQL with certificates: each fault has a message of its own, and costs few connections."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable
from ingest_pipeline.local.postgres import EmbeddedPostgres
from ingest_pipeline.local.privileges import ordinary_user
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline_tests.conftest import needed
from ingest_pipeline_tests.servers.broker import ServerUnavailable
from ingest_pipeline_tests.servers.certificates import Authority

MOST_CONNECTIONS = 3
"""The attempt, one for the SQLSTATE, and one for the reason against the certificate."""


@dataclass
class SecureServer:
    server: EmbeddedPostgres
    folder: Path
    authority: Authority

    def url(self, authority: Authority | None = None) -> str:
        return f"{self.server.url}?sslmode=verify-full&sslrootcert={(authority or self.authority).path}"

    def present(self, certificate: Path, key: Path) -> None:
        """Use this certificate from now on."""
        _install(certificate, self.folder / "server.crt")
        _install(key, self.folder / "server.key")
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")

    def connections(self) -> int:
        return self.server.log_path.read_text().count("connection received")


def _install(source: Path, target: Path) -> None:
    shutil.copy(source, target)
    target.chmod(0o600)
    if (user := ordinary_user()) is not None:
        os.chown(target, *user)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureServer]:
    with needed("REQUIRE_POSTGRES"):
        programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
        if programs is None:
            raise ServerUnavailable("no PostgreSQL with TLS is installed: apt-get install postgresql")
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "authority")
    for source, name in zip(authority.issue("right"), ("server.crt", "server.key"), strict=True):
        _install(source, folder / name)
    options = {
        "ssl": "on",
        "ssl_cert_file": str(folder / "server.crt"),
        "ssl_key_file": str(folder / "server.key"),
        "log_connections": "on",
    }
    # The embedded wheel is built without TLS.
    with EmbeddedPostgres(folder / "postgres", options=options, bin_dir=programs) as server:
        yield SecureServer(server, folder, authority)


def connect(url: str) -> bool:
    """Whether the session is encrypted."""
    database = Database(sqlalchemy_url(url))
    try:
        with database.connect("asking") as connection:
            row = connection.exec_driver_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").one()
            return bool(row.ssl)
    finally:
        database.dispose()


def refusal(secure: SecureServer, url: str) -> str:
    before = secure.connections()
    with pytest.raises(DatabaseUnavailable) as caught:
        connect(url)
    assert secure.connections() - before <= MOST_CONNECTIONS
    assert "\n" not in caught.value.message
    return caught.value.message


def test_the_right_certificate_is_accepted(secure: SecureServer) -> None:
    secure.present(*secure.authority.issue("right"))
    assert connect(secure.url())


def wrong_authority(secure: SecureServer) -> str:
    secure.present(*secure.authority.issue("right"))
    return secure.url(Authority(secure.folder, "other"))


def wrong_host(secure: SecureServer) -> str:
    secure.present(*secure.authority.issue("elsewhere", address="127.0.0.2"))
    return secure.url()


def expired(secure: SecureServer) -> str:
    secure.present(*secure.authority.issue("expired", days=-1))
    return secure.url()


def wrong_password(secure: SecureServer) -> str:
    secure.present(*secure.authority.issue("right"))
    head, _, rest = secure.url().partition("@")
    return f"{head.rpartition(':')[0]}:wrong@{rest}"


def missing_file(secure: SecureServer) -> str:
    return f"{secure.server.url}?sslmode=verify-full&sslrootcert={secure.folder / 'gone.pem'}"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (wrong_authority, "its certificate is refused: check sslrootcert and the host in DATABASE_URL"),
        (wrong_authority, "unable to get local issuer certificate"),
        (wrong_host, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        (expired, "certificate has expired"),
        (wrong_password, "28P01, the password or the user is refused"),
        (missing_file, "gone.pem"),
    ],
)
def test_each_fault_has_its_own_line(secure: SecureServer, fault: Callable[[SecureServer], str], words: str) -> None:
    assert words in refusal(secure, fault(secure))

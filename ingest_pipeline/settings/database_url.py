"""DATABASE_URL: the check of its form, its form for SQLAlchemy, its masked form. No message quotes a secret."""

import re
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

MASK = "********"
_SECRET_PARAMETER = re.compile(r"(?<=[?&])([^=&]*(?:password|secret|key|%)[^=&]*)=[^&]*", re.IGNORECASE)
_HOST = r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?"
_POSTGRES_URL = re.compile(
    r"postgres(?:ql)?://"
    r"(?:(?P<user>[^@:/?#\s]*)(?::(?P<password>[^@:/?#\s]*))?@)?"
    rf"(?P<hosts>(?:{_HOST}(?:,{_HOST})*)?)"
    r"(?:/(?P<database>[^@/?#\s]*))?"
    r"(?:\?(?P<query>[^#\s]*))?",
    re.ASCII,
)
_LOCAL = re.compile(r"|localhost|127\.[\d.]+|::1|[/@].*")
"""A host on this machine, or a folder of sockets."""
_DRIVER = re.compile(r"(jdbc:postgres(?:ql)?|postgres(?:ql)?\+[a-z0-9_]{1,20})://")
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,40}")

_LIBPQ_OPTIONS = """
    application_name channel_binding client_encoding connect_timeout dbname fallback_application_name
    gssdelegation gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle
    keepalives_interval krbsrvname load_balance_hosts max_protocol_version min_protocol_version
    oauth_client_id oauth_client_secret oauth_issuer oauth_scope options passfile password port replication
    require_auth requirepeer scram_client_key scram_server_key service ssl_max_protocol_version
    ssl_min_protocol_version sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey sslkeylogfile sslmode
    sslnegotiation sslpassword sslrootcert sslsni target_session_attrs tcp_user_timeout user
"""
LIBPQ_OPTIONS = frozenset(_LIBPQ_OPTIONS.split())
"""The options of libpq 18. psycopg has the list too, but importing psycopg would slow down Dagster's code loading."""
_FOREIGN_OPTIONS = {
    "ssl": "sslmode=require",
    "ssl_mode": "sslmode",
    "ssl_ca": "sslrootcert",
    "sslca": "sslrootcert",
    "ssl_cert": "sslcert",
    "ssl_key": "sslkey",
    "timeout": "connect_timeout",
    "connecttimeout": "connect_timeout",
    "logintimeout": "connect_timeout",
    "sockettimeout": "tcp_user_timeout",
    "targetservertype": "target_session_attrs",
    "database": "the path, as in postgresql://host/database",
    "username": "user",
    "schema": "the setting DATABASE_SCHEMA",
    "currentschema": "the setting DATABASE_SCHEMA",
    "search_path": "the setting DATABASE_SCHEMA",
    "connection_limit": "the setting DATABASE_POOL_MAX",
    "max_overflow": "the setting DATABASE_POOL_MAX",
    "pool_size": "the setting DATABASE_POOL_MIN",
    "synchronous_commit": "the setting DATABASE_SYNCHRONOUS_COMMIT",
    "pgbouncer": "nothing: leave it out, and name a pool in session mode",
    "prepare_threshold": "nothing: leave it out",
    "preparethreshold": "nothing: leave it out",
    "statement_cache_size": "nothing: leave it out",
    "statement_timeout": "nothing: every session sets its own",
    "lock_timeout": "nothing: every session sets its own",
    "charset": "nothing: every session uses UTF-8",
    "encoding": "nothing: every session uses UTF-8",
    "applicationname": "nothing: every session sets its own",
}
"""Options of other clients in lower case → the replacement."""
_OPTION_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("read-write", "primary", "any"),  # the other three choose servers that refuse writes
}
_NUMBER_OPTIONS = ("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count")


def check_postgres_url(text: str) -> None:
    """Raises ValueError with the reason, unless SQLAlchemy and libpq would read the same parts from the URL."""
    if text != text.strip():
        raise ValueError("it begins or ends with white space or with a line break")
    if text.startswith(("'", '"')) or text.endswith(("'", '"')):
        raise ValueError("it is in quotation marks: leave them out")
    if (driver := _DRIVER.match(text)) is not None:
        raise ValueError(f"it starts with {driver[1]}://: write postgresql://")
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("it starts with neither postgresql:// nor postgres://")
    if re.search(r"\s", text):
        raise ValueError("it contains white space: write a space in a name or a password as %20")
    match = _POSTGRES_URL.fullmatch(text)
    if match is None:
        raise ValueError(
            "special characters in user and password must be percent-encoded (@ is %40), a port is a number, and a"
            " socket is written as ?host=/dir"
        )
    _check_percent(text)
    _check_login(match)
    _check_options(match["query"] or "")


def _check_percent(text: str) -> None:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("a % must be followed by two hexadecimal digits: a percent sign itself is %25")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ValueError("the percent-encoded text is not UTF-8") from None
    if "\0" in decoded:
        raise ValueError("it contains %00, a NUL, and PostgreSQL cannot store NUL")


def _check_login(match: re.Match[str]) -> None:
    if match["user"] == "":
        raise ValueError("the user is empty")
    if match["password"] == "":
        raise ValueError("the password is empty: add the password or remove the colon")
    ports = re.findall(r"[\w\].-]:(\d+)(?=,|$)", match["hosts"])
    if any(not 1 <= int(port) <= 65535 for port in ports):
        raise ValueError("a port is a number from 1 to 65535")


def _check_options(query: str) -> None:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    for name, equals, value in ((unquote(name), equals, unquote(value)) for name, equals, value in pairs):
        if not equals or _OPTION.fullmatch(name) is None:
            raise ValueError("the question mark must be followed by options as name=value with & between them")
        if name not in LIBPQ_OPTIONS:
            raise ValueError(_unknown_option(name))
        if name in _OPTION_CHOICES and value not in _OPTION_CHOICES[name]:
            raise ValueError(f"{name} must be {' or '.join(_OPTION_CHOICES[name])}")
        if name in _NUMBER_OPTIONS and re.fullmatch(r"-?\d{1,9}", value) is None:
            raise ValueError(f"{name} must be a whole number")
    for name, times in Counter(name for name, _, _ in pairs).items():
        if times > 1 and name != "host":
            raise ValueError(f"the option {name} occurs {times} times")


def _unknown_option(name: str) -> str:
    replacement = _FOREIGN_OPTIONS.get(name.lower())
    if replacement is None and (near := get_close_matches(name.lower(), LIBPQ_OPTIONS, n=1, cutoff=0.75)):
        replacement = near[0]
    hint = f"use {replacement}" if replacement else "libpq's manual lists the options"
    return f"PostgreSQL's client has no option {name}: {hint.removeprefix('use nothing: ')}"


def sqlalchemy_url(url: str) -> str:
    """A checked PostgreSQL URL in SQLAlchemy's form for the psycopg driver.

    Several hosts move into the query, because SQLAlchemy accepts several hosts with ports nowhere else.
    """
    match = _POSTGRES_URL.fullmatch(url)
    if match is None:
        raise ValueError("not a PostgreSQL URL")
    _, _, rest = url.partition("://")
    hosts = match["hosts"]
    if "," in hosts:
        query = "&".join([f"host={host}" for host in hosts.split(",")] + ([match["query"]] if match["query"] else []))
        before = rest[: match.start("hosts") - len(url) + len(rest)]
        rest = f"{before}/{match['database'] or ''}?{query}"
    return f"postgresql+psycopg://{rest}"


def unverified_hosts(url: str, environ: Mapping[str, str]) -> list[str]:
    """The remote hosts whose certificate a connection to a checked URL would not verify.

    A service of libpq may name any host and overrides its variables, so beside it only the URL's own sslmode counts.

    Args:
        environ: may have libpq's own variables, valid where the URL is silent.
    """
    match = _POSTGRES_URL.fullmatch(url)
    options = dict(parse_qsl(match["query"] or "")) if match else {}
    root = options.get("sslrootcert", environ.get("PGSSLROOTCERT"))
    mode = options.get("sslmode", environ.get("PGSSLMODE", "verify-full" if root == "system" else "prefer"))
    service = options.get("service", environ.get("PGSERVICE"))
    if service and options.get("sslmode") != "verify-full":
        return [f"service {service}"]
    if match is None or mode == "verify-full":
        return []
    in_query = [host for name, host in parse_qsl(match["query"] or "") if name in ("host", "hostaddr")]
    in_environ = [] if "hostaddr" in options else [environ.get("PGHOSTADDR", "")]
    named = ",".join([match["hosts"] or "", *in_query]).strip(",") or environ.get("PGHOST", "")
    hosts = ",".join([named, *in_environ])
    names = [re.sub(r"^\[(.*)\](:\d+)?$|^([^:]*):\d+$", r"\1\3", host) for host in hosts.split(",")]
    return [name for name in names if _LOCAL.fullmatch(name) is None]


def database_name(url: str) -> str:
    match = _POSTGRES_URL.fullmatch(url)
    options = dict(parse_qsl(match["query"] or "")) if match else {}
    name = options.get("dbname") or (match and (unquote(match["database"] or "") or unquote(match["user"] or "")))
    return name or options.get("user") or "postgres"


def masked_url(url: str) -> str:
    """A checked PostgreSQL URL. Its password and every parameter that may be a secret are masked."""
    match = _POSTGRES_URL.fullmatch(url)
    if match is None:
        return MASK
    if match["password"]:
        url = f"{url[: match.start('password')]}{MASK}{url[match.end('password') :]}"
    return _SECRET_PARAMETER.sub(rf"\1={MASK}", url)

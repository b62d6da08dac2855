"""`python -m ingest_pipeline.settings.docs` prints docs/configuration.md.

With `--check FILE` the command prints one line and exits with 1 if the file differs from the page.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from .descriptions import Setting, describe
from .kafka import INSECURE, REFUSED, property_variable
from .load import load_settings
from .misspelt import FOREIGN

COMMAND = "python -m ingest_pipeline.settings.docs"
_LIBRDKAFKA = "https://github.com/confluentinc/librdkafka/blob/v2.16.0/CONFIGURATION.md"

_INTRO = f"""\
<!-- Written by `{COMMAND}`: change the settings there, not here. -->
# Configuration

Every setting is an environment variable with a default. Without any, the product connects to Kafka at
`localhost:9092` and to PostgreSQL at `localhost:5432`. A file `.env` in the current directory may hold settings
too. The environment overrides the file. An empty variable counts as not set.

A secret may come from a file: `DATABASE_URL_FILE` names a file with the text of `DATABASE_URL`, as Docker and
Kubernetes mount secrets. A line break at the file's end does not count. Both variables together are an error. Each run
reads the file again. `ALERT_WEBHOOK_URL`, `SCHEMA_REGISTRY_BASIC_AUTH` and every password, secret and PEM text of
Kafka's client, such as `KAFKA_SASL_PASSWORD`, have such a variable too.

`ingest settings` prints all settings and their values. The command, logs and messages mask passwords and keys. One
message lists all invalid settings at once.
"""

_OVERRIDES = f"""\
## Settings of a stream

These settings apply to all streams. A stream's name in front overrides a setting for one stream: `PRICE_BATCH_SIZE`
overrides `BATCH_SIZE` for the stream `price`.

- A misspelt stream name, as in `PRCIE_BATCH_SIZE`, is an error.
- Other prefixes, as in `EMBEDDING_BATCH_SIZE`, belong to other software and are ignored.
- Variables that start with {", ".join(f"`{prefix}`" for prefix in FOREIGN)} are ignored.
"""

_JOBS = """\
## Settings of a job

These settings concern runs and the sensor. They apply to all jobs. A job's name in front overrides a setting for one
job. A stream has a job of its own name unless it declares `job=`: `PRICE_PARALLELISM` overrides `PARALLELISM` for the
job of the stream `price`, and `SITES_PARALLELISM` for all streams with `job="sites"`.

- The name of a stream in another job, as in `HUMIDITY_PARALLELISM`, is an error.
- A job's name before a setting of a stream, as in `SITES_BATCH_SIZE`, is an error.
"""

_KAFKA = f"""\
## Settings of the Kafka client

A variable `KAFKA_…` sets a consumer property of [librdkafka 2.16]({_LIBRDKAFKA})
for all streams: `KAFKA_SECURITY_PROTOCOL` sets `security.protocol`. An unknown property is an error.

Two kinds of variables are ignored:

- The variables of Kubernetes and Docker for a service called `kafka`: `KAFKA_PORT…`, `KAFKA_SERVICE_…`,
  `KAFKA_…_TCP…`.
- The variables of Kafka's scripts and images: `KAFKA_HOME`, `KAFKA_…_OPTS`, `KAFKA_VERSION`,
  `KAFKA_SCALA_VERSION`, `KAFKA_JMX_…`.

These properties are refused, because each would break a guarantee:
"""

_UNSAFE = f"""
These values are refused:

- `KAFKA_ALLOW_AUTO_CREATE_TOPICS=true`: a misspelt topic would be created and read.
- `KAFKA_ENABLE_SSL_CERTIFICATE_VERIFICATION=false` and `KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM=none`: any server
  could pose as the broker. `{INSECURE}=1` allows both.
- `DATABASE_URL` with a host beyond this machine, or a service of libpq, and without `sslmode=verify-full`: any server
  could pose as PostgreSQL. `{INSECURE}=1` allows this as well.
"""

EXAMPLE = """\
DATABASE_URL=postgresql://ingest:change-me@db.example.com:5432/metrics?sslmode=verify-full&sslrootcert=system
KAFKA_BOOTSTRAP_SERVERS=kafka-1.example.com:9093,kafka-2.example.com:9093
KAFKA_SECURITY_PROTOCOL=SASL_SSL
KAFKA_SASL_MECHANISM=SCRAM-SHA-512
KAFKA_SASL_USERNAME=ingest
KAFKA_SASL_PASSWORD=change-me
BATCH_SIZE=5000
BATCH_TIMEOUT=0.5
PRICE_PARALLELISM=2
PRICE_START_FROM=2026-01-31T06:00:00Z
"""


def configuration_markdown() -> str:
    """docs/configuration.md with the defaults of an empty environment."""
    rows = describe(load_settings((), environ={}))
    by_reason: dict[str, list[str]] = {}
    for name, reason in REFUSED.items():
        by_reason.setdefault(reason, []).append(f"`{property_variable(name)}`")
    refused = "".join(f"| {', '.join(names)} | {reason} |\n" for reason, names in by_reason.items())
    return "\n".join(
        [
            _INTRO,
            "## Settings of the whole deployment\n",
            _table(row for row in rows if row.scope == "deployment"),
            _OVERRIDES,
            _table(row for row in rows if row.scope == "stream"),
            _JOBS,
            _table(row for row in rows if row.scope == "job"),
            _KAFKA,
            f"| Variable | Reason |\n|---|---|\n{refused}{_UNSAFE}",
            f"## An example\n\n```sh\n{EXAMPLE}```\n",
        ]
    )


def _table(rows: Iterable[Setting]) -> str:
    lines = ["| Variable | Default | Must be | Meaning |", "|---|---|---|---|"]
    for row in rows:
        default = f"`{row.default}`" if row.default else "none"
        lines.append(f"| `{row.name}` | {default} | {row.allowed} | {row.meaning} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the page or compares a file with the page. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Print the page about settings.")
    parser.add_argument(
        "--check", metavar="FILE", type=Path, help="compare this file instead and exit with 1 if it differs"
    )
    file: Path | None = parser.parse_args(arguments).check
    page = configuration_markdown()
    if file is None:
        sys.stdout.write(page)
        return 0
    if file.is_file() and file.read_text(encoding="utf-8") == page:
        return 0
    print(f"{file} is not up to date: {COMMAND} > {file}")
    return 1


if __name__ == "__main__":
    sys.exit(main())

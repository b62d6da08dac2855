"""The page about settings, made from the settings: `python -m ingest_pipeline.settings.docs` prints it.

With `--check FILE` it prints nothing, unless the file differs: then one line, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from .descriptions import Setting, describe
from .kafka import INSECURE, REFUSED, variable
from .load import load_settings
from .misspelt import FOREIGN

COMMAND = "python -m ingest_pipeline.settings.docs"
_LIBRDKAFKA = "https://github.com/confluentinc/librdkafka/blob/v2.16.0/CONFIGURATION.md"

_INTRO = f"""\
<!-- Written by `{COMMAND}`: change the settings there, not here. -->
# Configuration

Every setting is an environment variable. All have defaults: with none set, Kafka is looked for at
`localhost:9092` and PostgreSQL at `localhost:5432`. A file `.env` in the current directory is read as well;
the environment beats it. A variable that is set to nothing counts as not set.

`ingest settings` prints what is in force. Passwords and keys are masked there, in logs and in messages. When
settings cannot be used, one message names all of them.
"""

_OVERRIDES = f"""\
## Settings of a stream

These hold for all streams. With a stream's name in front, in capitals, one holds for that stream alone:
`PRICE_BATCH_SIZE` beats `BATCH_SIZE` for the stream `price`. A name in front that is nearly a
stream's is an error, so that `PRCIE_BATCH_SIZE` does not go unnoticed. Other names in front, such as
`EMBEDDING_BATCH_SIZE`, belong to other software and are ignored, and so are variables that start
with {", ".join(f"`{prefix}`" for prefix in FOREIGN)}.
"""

_KAFKA = f"""\
## The Kafka client

`KAFKA_` and the name of any consumer property of [librdkafka 2.16]({_LIBRDKAFKA}),
in capitals and with underscores for dots, sets that property: `KAFKA_SECURITY_PROTOCOL` is
`security.protocol`. These properties hold for all streams. A name that is no property is an error.

Not looked at are the variables that Kubernetes and Docker leave for a service called `kafka` (`KAFKA_PORT…`,
`KAFKA_SERVICE_…`, `KAFKA_…_TCP…`), and those of Kafka's own scripts and images (`KAFKA_HOME`, `KAFKA_…_OPTS`,
`KAFKA_VERSION`, `KAFKA_SCALA_VERSION`, `KAFKA_JMX_…`).

Refused, because what the product promises would not hold:
"""

_UNSAFE = f"""
Refused as values: `KAFKA_ALLOW_AUTO_CREATE_TOPICS=true`, as a misspelt topic would be created and drained;
and, unless `{INSECURE}=1`, `KAFKA_ENABLE_SSL_CERTIFICATE_VERIFICATION=false` and
`KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM=none`, as anybody could pose as the broker.
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
    """docs/configuration.md, from the defaults of an empty environment."""
    rows = describe(load_settings((), environ={}))
    by_reason: dict[str, list[str]] = {}
    for name, reason in REFUSED.items():
        by_reason.setdefault(reason, []).append(f"`{variable(name)}`")
    refused = "".join(f"| {', '.join(names)} | {reason} |\n" for reason, names in by_reason.items())
    return "\n".join(
        [
            _INTRO,
            "## Settings of the whole deployment\n",
            _table(row for row in rows if not row.per_stream),
            _OVERRIDES,
            _table(row for row in rows if row.per_stream),
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
    """Print the page, or compare a file with it. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Print the page about settings.")
    parser.add_argument("--check", metavar="FILE", type=Path, help="compare this file instead; exit 1 if it differs")
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

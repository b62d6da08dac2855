"""The JSON that commands print with --json. docs/operations.md lists the fields."""

import base64
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def print_json(value: object) -> None:
    """Times are RFC 3339 in UTC, bytes are base64, decimals and UUIDs are strings."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_text))


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(value).decode()
    assert isinstance(value, date | Decimal | UUID), f"no JSON for a {type(value).__name__}"
    return str(value)

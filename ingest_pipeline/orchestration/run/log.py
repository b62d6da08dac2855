"""Log lines of a run: logfmt or JSON on stderr, which Dagster keeps as the run's compute log."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

LOGGER = "ingest_pipeline"


class FieldsFormatter(logging.Formatter):
    """time, level, message, then the fields given as `extra={"fields": {...}}`."""

    def __init__(self, log_format: str) -> None:
        super().__init__()
        self._as_json = log_format == "json"

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if self._as_json:
            return json.dumps(fields, ensure_ascii=False)
        return " ".join(f"{name}={_logfmt(value)}" for name, value in fields.items())


def run_logger(log_format: str) -> logging.Logger:
    """The package's logger. Writes to stderr only."""
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(handler.formatter, FieldsFormatter) for handler in logger.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(FieldsFormatter(log_format))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


def _logfmt(value: Any) -> str:
    """A mapping as `0:17,1:18`, in quotes if it contains a space, a quote or =."""
    text = ",".join(f"{key}:{item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=\n') else text

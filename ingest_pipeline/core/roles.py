"""The roles that share the work. Every role has its own rights in PostgreSQL and Kafka."""

from enum import StrEnum


class Role(StrEnum):
    """OWNER runs `ingest migrate`. WRITER is the role of Dagster's runs, sensors and maintenance. OPERATOR may also
    redrive, discard, replay and accept losses. READER runs `ingest status` and `ingest metrics`."""

    OWNER = "owner"
    WRITER = "writer"
    OPERATOR = "operator"
    READER = "reader"

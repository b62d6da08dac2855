"""Kafka topics into PostgreSQL tables, exactly once, in micro-batches run by Dagster.

The folders are the outside systems: ``kafka``, ``postgres``, ``orchestration`` (Dagster). ``core`` is plain
Python and knows none of them. A new stream is added in ``streams.py``; ``definitions.py`` is what Dagster loads.
"""

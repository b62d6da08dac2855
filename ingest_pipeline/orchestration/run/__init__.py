"""A Dagster run that drains a stream."""

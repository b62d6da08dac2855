"""The Dagster parts: in process on a real instance, and as real `dagster dev`; always on real Kafka and PostgreSQL."""

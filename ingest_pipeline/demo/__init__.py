"""``ingest demo`` on one machine without Docker: PostgreSQL, a broker, simulated devices and Dagster."""

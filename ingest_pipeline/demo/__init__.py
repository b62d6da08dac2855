"""What ``ingest demo`` runs on one machine without Docker: PostgreSQL, a broker, simulated devices."""

"""The drain loop in plain Python. No module of core imports a client of Kafka, PostgreSQL or Dagster."""

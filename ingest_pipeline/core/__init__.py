"""The drain loop and what it needs, in plain Python: nothing here knows Kafka's, PostgreSQL's or Dagster's client."""

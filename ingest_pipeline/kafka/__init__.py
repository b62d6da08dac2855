"""All code that uses Kafka's client."""

"""Everything that touches Kafka's client."""

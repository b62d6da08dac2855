"""Real Kafka and PostgreSQL for the tests, from whatever this machine offers; ``choose`` has the order."""

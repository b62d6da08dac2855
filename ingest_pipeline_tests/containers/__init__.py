"""docker-compose.yml for real: `make container-test`."""

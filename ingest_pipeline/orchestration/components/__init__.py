"""Streams declared in YAML: a Component of Dagster."""

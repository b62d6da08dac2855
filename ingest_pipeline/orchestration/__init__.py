"""The Dagster side of the package."""

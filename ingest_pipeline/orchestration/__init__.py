"""Everything that touches Dagster."""

"""What the command line and Dagster both do: plain Python over core, kafka and postgres."""

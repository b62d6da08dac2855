"""Plain Python over core, kafka and postgres, shared by the command line and Dagster."""

"""The jobs that drain nothing."""

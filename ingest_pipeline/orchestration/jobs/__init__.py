"""Jobs that do not drain."""
